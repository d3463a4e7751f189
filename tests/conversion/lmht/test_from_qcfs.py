"""LM-HT networks that start where a QCFS network ended."""

import warnings

import pytest
import torch
from torch import nn

import spiking
import zoo
from conversion import convert, lmht
from spiking.qcfs import QCFS, qcfs

LEVELS = [(1, 4), (2, 2), (2, 4), (4, 2)]
PAIRS = {
    "resnet18": {"layers": (1, 1), "planes": (8, 16)},
    "resnet20": {"layers": (2, 1), "planes": (8, 16)},
    "vgg16": {"plan": ((8,), (8, 8), (16,)), "hidden": 32},
}


def source(name, levels, **kwargs):
    """A small QCFS network with statistics, shifts and thresholds of its own."""
    torch.manual_seed(0)
    model = zoo.create(
        f"qcfs_{name}", levels=levels, v_threshold=2.0, num_classes=5, **{**PAIRS[name], **kwargs}
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, -0.3, 0.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.momentum = 0.5
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=2 * module.in_features**-0.5)
            nn.init.uniform_(module.bias, -0.3, 0.5)
        elif isinstance(module, QCFS):
            nn.init.uniform_(module.v_threshold, 1.0, 3.0)
    with torch.no_grad():
        model(torch.randn(8, 3, 16, 16))
    return model.double().eval()


def network(name, L, T, **kwargs):
    torch.manual_seed(1)
    args = {"num_classes": 5, "time_steps": T, "neuron_args": {"levels": L}, **PAIRS[name], **kwargs}
    return zoo.create(f"lmht_{name}", **args).double().eval()


def images():
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(3)).double()


@pytest.mark.parametrize(("L", "T"), LEVELS)
def test_a_neuron_is_the_activation(L, T):
    """Its mean output is QCFS of its mean current, for any currents, to the last bits of float64."""
    x = torch.randn(T, 50, generator=torch.Generator().manual_seed(L)).double() * 3 + 1
    theta = torch.tensor([2.7]).double()
    neuron = spiking.LMHT(T, L, v_init=0.5).double()
    neuron.v_threshold.copy_(theta[0] / L)
    torch.testing.assert_close(neuron(x).mean(0), qcfs(x.mean(0), theta, L * T), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("L", "T"), LEVELS)
@pytest.mark.parametrize("name", PAIRS)
def test_a_network_starts_as_its_source(name, L, T):
    ann, x = source(name, L * T), images()
    want = ann(x)
    assert want.std() > 0
    for init, scale in (("normalized", 1), ("scaled_bias", L)):
        model = network(name, L, T)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            lmht.from_qcfs(model, ann, init=init)
        torch.testing.assert_close(model(x) / scale, want, rtol=0, atol=1e-9)
        again = network(name, L, T)  # nothing hides outside the weights
        again.load_state_dict(model.state_dict())
        assert torch.equal(again(x), model(x))


def test_the_released_initialisation_leaves_the_biases_behind():
    L, T = 2, 2
    ann, x = source("resnet20", L * T), images()
    model, scaled = network("resnet20", L, T), network("resnet20", L, T)
    lmht.from_qcfs(model, ann, official_bias=True)
    lmht.from_qcfs(scaled, ann, init="scaled_bias")
    assert (model(x) - ann(x)).abs().max() > 1e-3
    differing = {
        key for key, value in model.state_dict().items() if not torch.equal(value, scaled.state_dict()[key])
    }
    assert {key.rpartition(".")[2] for key in differing} == {"bias", "running_mean"}
    assert not any(key.startswith("bn1.") for key in differing), "the stem comes before the first neuron"
    assert float(model.sn1.input_scale) == float(scaled.sn1.input_scale) == L


def test_the_source_stays_and_training_goes_on():
    ann = source("resnet18", 4)
    model = network("resnet18", 2, 2)
    lmht.from_qcfs(model, ann)
    before = {key: value.clone() for key, value in ann.state_dict().items()}
    model.train()(images()).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    for key, value in ann.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.filterwarnings("ignore:on these images")
def test_from_a_source_to_single_spikes():
    """QCFS, LM-HT, one threshold: the three stages agree."""
    ann, x = source("resnet18", 4), images()
    model = network("resnet18", 2, 2)
    lmht.from_qcfs(model, ann)
    single = lmht.reparameterise(model, x)
    found = lmht.agreement(model, single, x)
    assert found.difference < 1e-9 or min(found.windows.values()) < 1.0
    assert single.time_steps == 4


@pytest.mark.parametrize("method", ["qcfs", "srp", "cos", "parallel"])
def test_a_converted_network_is_a_source_like_its_own(method):
    ann, x = source("resnet20", 4).float(), images().float()
    snn = convert(ann, method, 4, input_size=(3, 16, 16), progress=False)
    model = network("resnet20", 2, 2).float()
    lmht.from_qcfs(model, snn)
    torch.testing.assert_close(model(x), ann(x), rtol=1e-4, atol=1e-4)


def test_measured_thresholds_are_thresholds():
    """A network with ReLU, converted: LM-HT starts as the quantiser of L T levels that it stands for."""
    ann, x = source("vgg16", 4, activation="relu").float(), images().float()
    snn = convert(ann, "qcfs", 4, x, threshold="max", progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fine = network("vgg16", 16, 16).float()
        lmht.from_qcfs(fine, snn)
    torch.testing.assert_close(fine(x), ann(x), rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("dcgs", {}, "is a TrackingSite, which sends one of several levels"),
        ("dcgs", {"code": "rate"}, "is a RateSite, which sends one of several levels"),
        ("ecmt", {}, "is a MultiThresholdSite, which sends one of several levels"),
        ("qcfs", {"channelwise": True}, "has a threshold for each channel"),
        ("parallel", {}, "has a threshold for each channel"),
    ],
)
def test_converted_networks_without_counterpart_say_why(method, settings, message):
    ann, x = source("resnet18", 4, activation="relu").float(), images().float()
    snn = convert(ann, method, 4, x, progress=False, **settings)
    with pytest.raises(ValueError, match=message):
        lmht.from_qcfs(network("resnet18", 2, 2).float(), snn)


def test_corrections_have_no_counterpart():
    ann, x = source("resnet18", 8).float(), images().float()
    snn = convert(ann, "parallel", 4, x, progress=False)
    with pytest.raises(ValueError, match=r"corrects its currents and outputs \(phi_in, phi_out\)"):
        lmht.from_qcfs(network("resnet18", 2, 2).float(), snn)


def test_other_numbers_of_levels_are_told():
    with pytest.warns(UserWarning, match=r"Q = \[8\] levels, the network has L T = 2 \* 2 = 4"):
        lmht.from_qcfs(network("resnet18", 2, 2), source("resnet18", 8))


@pytest.mark.parametrize(
    ("ann", "model", "init", "message"),
    [
        (
            ("resnet18", {}),
            ("resnet18", {}),
            "normalised",
            "init must be one of normalized, scaled_bias, got",
        ),
        (("resnet18", {"activation": "relu"}), ("resnet18", {}), "normalized", "has no QCFS activations"),
        (("resnet18", {}), ("resnet20", {}), "normalized", "has 5 activations, the network 7 neurons"),
        (
            ("resnet18", {}),
            ("resnet18", {"planes": (8, 24)}),
            "normalized",
            r"'layer2.0.conv1' of the source",
        ),
        (
            ("resnet18", {}),
            ("resnet18", {"num_classes": 7}),
            "normalized",
            r"'fc' of the source does not fit 'fc.0'",
        ),
        (("resnet18", {}), ("resnet18", {"preactivation": True}), "normalized", "network 4 neurons"),
    ],
)
def test_what_does_not_fit_is_named(ann, model, init, message):
    target = network(model[0], 2, 2, **model[1])
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        lmht.from_qcfs(target, source(ann[0], 4, **ann[1]), init=init)
    for key, value in target.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_network_of_other_neurons_is_refused():
    with pytest.raises(ValueError, match="has no LM-HT neurons"):
        lmht.from_qcfs(zoo.create("spiking_resnet18", **PAIRS["resnet18"]), source("resnet18", 4))
