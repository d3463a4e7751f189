"""ECMT and DCGS on small members of timm's families: what they promise of any backbone."""

import pytest
import timm
import torch
from torch import nn

import spiking
import zoo
from conversion import ConversionError, bypassed, convert
from conversion.calibration.threshold_iteration import iterated_threshold
from conversion.methods.dcgs import TrackingSite
from conversion.network.site import sites

MODELS = {
    "vit": lambda: timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=5
    ),
    "resnet": lambda: timm.create_model("resnet10t", num_classes=5),
    "gates": lambda: timm.create_model("lcnet_050", num_classes=5),  # hard swish, squeeze and excitation
}
METHODS = {
    "ecmt": ("ecmt", {}),
    "dcgs": ("dcgs", {}),
    # an average is never above the largest level, so that what a smaller one clips would stay an error
    "rate": ("dcgs", {"code": "rate", "threshold": "max"}),
}


def images(count=4, seed=0):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def ann(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for module in model.modules():  # random networks say little: give their signals some size
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    return model


def means(steps):
    counts = torch.arange(1, len(steps) + 1, dtype=steps.dtype).view(-1, 1, 1)
    return steps.cumsum(0) / counts


@pytest.fixture(scope="module", params=[(m, n) for m in METHODS for n in MODELS], ids="-".join)
def case(request):
    (method, settings), name = METHODS[request.param[0]], request.param[1]
    model = ann(name)
    return model, convert(model, method, 8, images(), progress=False, **settings)


@torch.no_grad()
def test_without_neurons_every_step_is_the_source(case):
    model, snn = case
    with bypassed(snn):
        steps = means(snn(images(3, seed=1), steps=True))
    expected = model(images(3, seed=1))
    torch.testing.assert_close(steps, expected.expand_as(steps), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_more_steps_come_closer(case):
    model, snn = case
    x = images()
    expected = model(x)
    snn.time_steps = 64
    errors = (means(snn(x, steps=True)) - expected).abs().mean(dim=(1, 2)) / expected.abs().mean()
    snn.time_steps = 8
    assert errors[-1] < 0.1
    assert errors[-1] < 0.5 * errors[1]


@torch.no_grad()
def test_chunks_are_the_whole(case):
    _, snn = case
    x = images(2).double()
    snn = snn.double()
    whole = snn(x, steps=True)
    with spiking.streaming(snn):
        snn.time_steps = 2
        chunks = torch.cat([snn(x, steps=True) for _ in range(4)])
    snn.time_steps = 8
    snn.float()
    torch.testing.assert_close(chunks, whole)


@pytest.mark.parametrize("code", ["differential", "rate"])
@torch.no_grad()
def test_round_trip_through_a_folder(tmp_path, code):
    snn = convert(ann("resnet"), "dcgs", 4, images(), progress=False, level="channel", code=code)
    zoo.save(snn, tmp_path / "out")
    back = zoo.load(f"local-dir:{tmp_path / 'out'}")
    back.time_steps = snn.time_steps = 16
    assert torch.equal(back(images()), snn(images()))


@torch.no_grad()
def test_differential_code_falls_silent():
    snn = convert(ann("resnet"), "dcgs", 32, images(), progress=False)
    with spiking.FiringRateMonitor(snn) as monitor:
        snn(images())
    for rates in monitor.rates_per_step().values():
        assert rates[-8:].mean() < 0.5 * rates[:2].mean()


def test_neurons_of_the_policies():
    vit, resnet = ann("vit"), ann("resnet")
    depth = 2
    every = convert(vit, "dcgs", 2, images(), progress=False, policy="official-transformer")
    assert len(sites(every)) == 8 * depth + 2  # four layers, four operands; patch embedding and head
    inner = {"include_patch_embed": False, "include_head": False}
    fewer = convert(vit, "dcgs", 2, images(), progress=False, policy="official-transformer", **inner)
    ecmt = convert(vit, "ecmt", 2, images(), progress=False)
    assert len(sites(ecmt)) == len(sites(fewer)) == 8 * depth
    official = convert(resnet, "dcgs", 2, images(), progress=False, policy="official-cnn")
    assert {s.activation.kind for s in sites(official).values()} == {"relu"}
    with pytest.raises(ConversionError, match="layer_norm"):
        convert(vit, "dcgs", 2, images(), progress=False, policy="official-cnn")


def test_fixed_bases_of_ecmt():
    snn = convert(ann("vit"), "ecmt", 2, images(), progress=False, gelu_bases=(0.25, 0.08))
    found = {s.producer: s for s in sites(snn).values()}
    assert found["softmax"].v_threshold.item() == pytest.approx(0.0125)
    assert found["gelu"].negative_threshold.item() == pytest.approx(0.08)


@torch.no_grad()
def test_ecmt_takes_back_what_a_relu_sent_too_much():
    """The increments of a ReLU's running mean have both signs even if its values have one."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    net = nn.Sequential(net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    x = torch.rand(8, 3, 16, 16)  # like the first ReLU, without negative values
    snn = convert(net, "ecmt", 16, x, progress=False, percent=0.9, include_patch_embed=True)
    for site in sites(snn).values():
        assert site.negative_threshold.item() == site.v_threshold.item() > 0
    steps = snn(x, steps=True)
    means = steps.cumsum(0) / torch.arange(1, 17).view(-1, 1, 1)
    errors = (means - net(x)).abs().mean((1, 2))
    assert errors[-1] < 0.2 * errors[0]
    assert errors[-1] < 0.02 * net(x).abs().mean()


@torch.no_grad()
def test_ecmt_finds_levels_of_sparse_signals():
    conv = nn.Conv2d(3, 4, 1)
    nn.init.eye_(conv.weight[:3, :, 0, 0])
    nn.init.zeros_(conv.weight[3])
    nn.init.constant_(conv.bias, -0.95)  # some five of a hundred values pass
    net = nn.Sequential(conv, nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4 * 64, 4)).eval()
    x = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    snn = convert(net, "ecmt", 4, x, progress=False, percent=0.9)
    behind_relu = next(iter(sites(snn).values()))
    assert 0 < behind_relu.v_threshold.item() < 0.05


@torch.no_grad()
def test_iterated_thresholds_follow_t():
    settings = {"policy": "official-cnn", "threshold": "iterated", "level": "channel", "levels": 4}
    snn = convert(ann("resnet"), "dcgs", 4, images(), progress=False, **settings)
    site = next(iter(sites(snn).values()))
    assert isinstance(site, TrackingSite)
    before = site.v_threshold.clone()
    snn.time_steps = 16
    assert not torch.equal(site.v_threshold, before)
    torch.testing.assert_close(site.v_threshold, iterated_threshold(site.mean, site.var, 16 * 2**4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "best"}, "official-cnn"),
        ({"policy": "official-cnn", "include_head": False}, "have no meaning"),
        ({"code": "temporal"}, "code must be one of differential, rate, got 'temporal'"),
        ({"threshold": "mse"}, "iterated"),
        ({"threshold": "iterated", "policy": "official-transformer"}, "ReLU"),
        ({"threshold_scale": 0.0}, "positive"),
        ({"level": "pixel"}, "known"),
        ({"levels": -1}, "at least 0"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        convert(ann("resnet"), "dcgs", 2, images(), progress=False, **settings)
