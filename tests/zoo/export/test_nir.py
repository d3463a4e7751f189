"""Networks as NIR graphs: what nodes and edges say, that they compute the same, and what is refused."""

import copy
import functools
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

import conversion
import spiking
import zoo
from spiking.layers import FoldTime
from zoo.errors import ExportError

nir = pytest.importorskip("nir", reason="the extra 'nir' is not installed")
from zoo.export.nir.write import graph_of  # noqa: E402
from zoo.interchange.from_nir import network_of  # noqa: E402

SMALL_SEW = {"layers": (1, 1), "planes": (8, 16), "stem": "3x3", "num_classes": 5}
NETWORKS = {  # entry, arguments, one sample
    "sew": ("sew_resnet18", {**SMALL_SEW, "layers": (1,), "planes": (8,)}, (3, 16, 16)),
    "sew of LIF": ("sew_resnet18", {**SMALL_SEW, "neuron": "lif"}, (3, 16, 16)),
    "vgg": ("spiking_vgg11", {"plan": ((8,), (8, 8), (16,)), "hidden": 32, "num_classes": 5}, (3, 8, 8)),
    "vgg of PLIF": (
        "spiking_vgg11",
        {
            "plan": ((8,), (16,)),
            "hidden": 0,
            "num_classes": 5,
            "neuron": "plif",
            "neuron_args": {"init_tau": 3.0},
        },
        (3, 8, 8),
    ),
    "ms": ("ms_resnet18", {"layers": (1, 1), "planes": (8, 16), "num_classes": 5}, (3, 16, 16)),
    "cnn": ("spiking_cnn_nano", {"channels": (8, 8, 16)}, (1, 16, 16)),
}


def lively(model):
    """Norms with statistics of their own, under which neurons fire; evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) * 0.2 + 0.05)
    return model.eval()


def built(name):
    torch.manual_seed(0)
    entry, arguments, shape = NETWORKS[name]
    return lively(zoo.create(entry, **arguments)), shape


QUICK = ("sew",)


@functools.cache
def written(name):
    """A network, its graph, which takes seconds, and the shape of a sample."""
    model, shape = built(name)
    return model, graph_of(model, shape), shape


def slow(*values, unless):
    """A case that plain ``pytest`` leaves to CI, unless it is one of the few that stand for its kind."""
    return pytest.param(*values, marks=() if unless else pytest.mark.slow)


@pytest.mark.parametrize("name", [slow(name, unless=name in QUICK) for name in NETWORKS])
def test_a_graph_computes_what_the_network_does(name):
    model, graph, shape = written(name)
    x = torch.randn(5, 3, *shape, dtype=torch.float64)
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(x, steps=True)
        got = network_of(graph, dtype=torch.float64)(x, steps=True)
    assert expected.std() > 0, "a silent network proves nothing"
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


NUMBERS = [  # neuron, node, what it holds
    (
        spiking.LIF(tau=2.0),
        "LIF",
        {"tau": 2e-4, "r": 1.0, "v_leak": 0.0, "v_reset": 0.0, "v_threshold": 1.0},
    ),
    (
        spiking.LIF(tau=2.5, decay_input=False, v_threshold=0.5),
        "LIF",
        {"tau": 2.5e-4, "r": 2.5, "v_threshold": 0.5},
    ),
    (spiking.LIF(v_reset=-0.25), "LIF", {"v_leak": -0.25, "v_reset": -0.25}),
    (spiking.PLIF(init_tau=4.0), "LIF", {"tau": 4e-4, "r": 1.0}),
    (spiking.IF(v_threshold=2.0), "IF", {"r": 1e4, "v_threshold": 2.0, "v_reset": 0.0}),
]


def test_numbers_of_neurons_are_float64_at_their_shape():
    layers = [(f"fire{i}", neuron) for i, (neuron, _, _) in enumerate(NUMBERS)]
    graph = graph_of(nn.Sequential(OrderedDict([("first", nn.Linear(3, 4)), *layers])).eval(), (3,))
    for (name, neuron), (_, kind, numbers) in zip(layers, NUMBERS, strict=True):
        assert type(graph.nodes[name]).__name__ == kind
        for field, value in numbers.items():
            held = getattr(graph.nodes[name], field)
            assert held.shape == (4,), (name, field)
            assert held.dtype == np.float64, (name, field)
            rtol = 1e-7 if isinstance(neuron, spiking.PLIF) else 1e-15
            np.testing.assert_allclose(held, value, rtol=rtol, err_msg=f"{name} {field}")


def test_a_residual_addition_is_two_edges_into_one_node():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.fire = nn.Linear(3, 3), spiking.IF()
            self.second, self.last = nn.Linear(3, 3), spiking.IF()

        def forward(self, x):
            spikes = self.fire(self.first(x))
            return self.last(self.second(spikes) + spikes)

    graph = graph_of(Residual().eval(), (3,))
    assert sorted(graph.edges) == sorted(
        [
            ("input", "first"),
            ("first", "fire"),
            ("fire", "second"),
            ("second", "last"),
            ("fire", "last"),
            ("last", "output"),
        ]
    )


def test_norms_are_folded():
    model, graph, _ = written("sew")
    kinds = [type(node).__name__ for node in graph.nodes.values()]
    convolutions = sum(isinstance(m, nn.Conv2d) for m in model.modules())
    assert kinds.count("Conv2d") == convolutions
    conv, norm = model.conv1, model.bn1
    gain = norm.weight / torch.sqrt(norm.running_var.double() + norm.eps)
    expected = (conv.weight.double() * gain[:, None, None, None]).detach().numpy()
    np.testing.assert_allclose(graph.nodes["conv1"].weight, expected, rtol=1e-12)


def test_a_file_is_read_back(tmp_path):
    torch.manual_seed(0)
    shape = (1, 16, 16)
    model = lively(zoo.create("spiking_cnn_nano", channels=(8, 8), num_classes=5))
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": shape}
    done = zoo.export(model, tmp_path / "net.nir")
    assert "in float64" in done.checked
    assert done.gap < 0.05
    assert [p.name for p in tmp_path.iterdir()] == ["net.nir"]
    again = zoo.load(str(tmp_path / "net.nir"))
    assert again.time_steps == model.time_steps
    x = torch.randn(8, *shape)
    with torch.no_grad():
        assert (again(x) - model(x)).abs().max() < 0.05 * model(x).abs().max()
        torch.testing.assert_close(again(x, steps=True).mean(0), again(x))


@pytest.mark.slow
def test_the_shipped_network_keeps_its_answers(tmp_path):
    model = zoo.load("spiking_cnn_nano.mnist5k_t4")
    zoo.export(model, tmp_path / "net.nir")
    again = zoo.load(str(tmp_path / "net.nir"))
    from sklearn.datasets import load_digits

    digits = torch.from_numpy(load_digits().images[:64]).float()[:, None] / 16
    x = (nn.functional.interpolate(digits, 28, mode="bilinear") - 0.1307) / 0.3081
    with torch.no_grad():
        assert torch.equal(model(x).argmax(-1), again(x).argmax(-1))


def sew(**arguments):
    return zoo.create("sew_resnet18", **{**SMALL_SEW, **arguments})


def vgg(**arguments):
    return zoo.create("spiking_vgg11", hidden=0, plan=((8,),), **arguments)


def converted(method):
    source = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    ).eval()
    return conversion.convert(source, method=method, time_steps=2, calibration=torch.randn(4, 3, 8, 8))


class Inverse(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = spiking.IF(), spiking.IF()

    def forward(self, x):
        return self.second(1 - self.first(x))


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = spiking.IF(), spiking.IF()

    def forward(self, x):
        return self.first(x) * self.second(x)


@pytest.mark.parametrize(
    ("model", "shape", "node", "why"),
    [
        (lambda: vgg(neuron_args={"v_reset": None}), (3, 8, 8),
         r"layer1\.1", "soft reset"),
        (lambda: vgg(neuron="glif"), (3, 8, 8), r"layer1\.1.*GLIF",
         "IF and LIF"),
        pytest.param(
            lambda: sew(stem="7x7"), (3, 32, 32), "maxpool", "no maximum", marks=pytest.mark.slow
        ),
        (lambda: zoo.create("spikformer_nano"), (1, 28, 28), r"attn\.matmul1.*attention", "multiplies two"),
        (lambda: zoo.create("spikingresformer_nano"), (1, 28, 28), "attention", "multiplies two"),
        pytest.param(
            lambda: sew(connect="AND"), (3, 16, 16), r"layer1\.0", "multiplies two", marks=pytest.mark.slow
        ),
        pytest.param(
            lambda: sew(connect="IAND"), (3, 16, 16), r"layer1\.0", "constant", marks=pytest.mark.slow
        ),
        (lambda: Inverse(), (3,), "rsub", "constant"),
        (lambda: zoo.create("qcfs_resnet18", layers=(1, 1), planes=(8, 16)), (3, 32, 32),
         "QCFSResNet", "no spiking neurons"),
        pytest.param(
            lambda: nn.Sequential(nn.Linear(3, 3), spiking.IF(), nn.LayerNorm(3)),
            (3,), "2", "statistics", marks=pytest.mark.slow
        ),
        (lambda: nn.Sequential(nn.Linear(3, 3), spiking.IF(), nn.ReLU()), (3,), "2", "activation"),
        (lambda: Gate(), (3,), "mul", "multiplies two"),
        (lambda: converted("qcfs"), (3, 8, 8), "qcfs", "reset by subtraction"),
    ],
)  # fmt: skip
def test_what_nir_cannot_say_is_named_with_a_reason(model, shape, node, why):
    with pytest.raises(ExportError, match=node) as error:
        graph_of(model().eval(), shape)
    assert why in str(error.value)


@pytest.mark.parametrize("side", [slow(side, unless=side == 5) for side in (1, 3, 5, 7, 9)])
def test_pooling_that_rounds_up_over_odd_maps(side):
    model = nn.Sequential(FoldTime(nn.AvgPool2d(2, ceil_mode=True)), spiking.IF(v_threshold=0.01)).eval()
    x = torch.rand(3, 2, 4, side, side, dtype=torch.float64) * (torch.rand(3, 2, 4, side, side) < 0.2)
    network = network_of(graph_of(model, (4, side, side)), dtype=torch.float64)
    assert torch.equal(network(x, steps=True), model(x))
    assert network.output_shape == (4, (side + 1) // 2, (side + 1) // 2)


def test_an_uneven_pooling_names_the_map():
    model = nn.Sequential(FoldTime(nn.AvgPool2d(3, ceil_mode=True)), spiking.IF()).eval()
    with pytest.raises(ExportError, match="7 x 7"):
        graph_of(model, (1, 7, 7))


def test_what_acts_across_time_is_found_by_comparison(tmp_path):
    class Late(nn.Module):
        """Hands on the steps in reverse, which one step cannot show."""

        def __init__(self):
            super().__init__()
            self.linear, self.fire = nn.Linear(3, 3), spiking.IF(v_threshold=0.1)
            self.pretrained_cfg = {"input_size": (3,)}

        def forward(self, x):
            return self.fire(self.linear(x).flip(0) if x.shape[0] > 1 else self.linear(x))

    with pytest.raises(ExportError, match="across steps"):
        zoo.export(Late().eval(), tmp_path / "net.nir")
    assert not list(tmp_path.iterdir()), "nothing half-written stays"
