"""State dicts of snnTorch: recognised, completed by what they do not tell, equal to the library's outputs."""

import pytest
import torch
from torch import nn

import spiking
import zoo
from cli.main import main
from zoo.errors import CheckpointError
from zoo.interchange.from_snntorch import arguments_of, is_snntorch
from zoo.models.snntorch_network import Leaky

STEPS = 6


def leaky(beta=0.5, threshold=1.0, graded=1.0, reset=0):
    return {
        "threshold": torch.tensor(threshold),
        "graded_spikes_factor": torch.tensor(graded),
        "reset_mechanism_val": torch.tensor(reset),
        "beta": torch.tensor(beta),
    }


def state_of(*modules):
    """A state dict of numbered modules."""
    return {f"{i}.{leaf}": value for i, module in modules for leaf, value in module.items()}


def linear(out_features, in_features):
    return {"weight": torch.eye(out_features, in_features), "bias": torch.zeros(out_features)}


def run(neuron, currents):
    return neuron(torch.tensor(currents).reshape(-1, 1, 1)).flatten().tolist()


def neuron(beta, **settings):
    made = Leaky(**settings)
    made.beta.fill_(beta)
    return made


def test_by_hand():
    """Steps of Leaky with beta = 1/2 and threshold 1."""
    # 1.5 fires; 0.75 + 1.5 - 1 = 1.25 fires; 0.625 + 1.5 - 1 = 1.125 fires
    assert run(neuron(0.5), [1.5] * 3) == [1, 1, 1]
    # 2 fires; 1 + 0 - 1 = 0; 0.75; at the threshold, 0.375 + 0.625, nothing fires
    assert run(neuron(0.5), [2.0, 0.0, 0.75, 0.625]) == [1, 0, 0, 0]
    # reset to zero: 0.75 + 0 after the spike, whatever was above
    assert run(neuron(0.5, reset="zero"), [5.0, 0.75, 0.75, 0.0]) == [1, 0, 1, 0]
    # no reset: 1.5, 0.75 + 0.5 = 1.25, 0.625
    assert run(neuron(0.5, reset="none"), [1.5, 0.5, 0.0]) == [1, 1, 0]
    # without delay what is handed on is 1.5 - 1 = 0.5, of which half stays: 0.25 + 0.8 fires
    assert run(neuron(0.5, delay=False), [1.5, 0.8]) == [1, 1]
    # with delay 0.75 + 0.8 - 1 = 0.55 does not
    assert run(neuron(0.5), [1.5, 0.8]) == [1, 0]


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("delay", [True, False])
def test_streams_and_has_gradients(reset, delay):
    unit = neuron(0.8, reset=reset, delay=delay).eval()
    x = torch.rand(STEPS, 2, 3, generator=torch.Generator().manual_seed(0)) * 2
    with torch.no_grad(), spiking.streaming(unit):
        parts = torch.cat([unit(chunk) for chunk in x.split(2)])
    assert torch.equal(parts, unit(x))
    x.requires_grad_()
    unit(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_a_file_of_linear_layers_tells_all(tmp_path):
    state = state_of((0, linear(4, 6)), (1, leaky()), (3, linear(3, 4)), (4, leaky(0.9)))
    assert is_snntorch(state)
    torch.save(state, tmp_path / "theirs.pth")
    main(["import", str(tmp_path / "theirs.pth"), "--output", str(tmp_path / "out"), "--time-steps", "5"])
    again = zoo.load(f"local-dir:{tmp_path / 'out'}")
    assert again(torch.rand(2, 6), steps=True).shape == (5, 2, 3)
    assert [round(float(m.beta), 4) for m in again.modules() if isinstance(m, Leaky)] == [0.5, 0.9]


def test_the_order_is_that_of_the_numbers():
    state = state_of((10, leaky()), (9, linear(3, 4)), (1, linear(4, 6)), (2, leaky()))
    graph = arguments_of(state, {})["graph"]
    assert [node["kind"] for node in graph["nodes"]] == ["linear", "leaky", "linear", "leaky"]
    assert graph["input_shape"] == [6]


CONV = {"weight": torch.zeros(2, 1, 3, 3), "bias": torch.zeros(2)}
MAPS = state_of((0, CONV), (1, leaky()), (4, linear(3, 32)), (5, leaky()))
LAYERS = ["conv padding=1", "leaky", "maxpool 2", "flatten", "linear", "leaky"]


@pytest.mark.parametrize(
    ("state", "given", "message"),
    [
        (MAPS, {}, 'layers=\\["conv", "maxpool 2", "leaky", "flatten", "linear", "leaky"\\]'),
        (MAPS, {"layers": LAYERS}, "shape of a sample"),
        (MAPS, {"layers": LAYERS[:-1], "input_shape": [1, 8, 8]}, "ends before the file.*leaky"),
        (MAPS, {"layers": [*LAYERS, "linear"], "input_shape": [1, 8, 8]}, "position 6.*no more"),
        (MAPS, {"layers": LAYERS[1:], "input_shape": [1, 8, 8]}, "position 0, where the file has 'conv'"),
        (MAPS, {"layers": ["conv halo=1"], "input_shape": [1, 8, 8]}, "'halo=1'.*stride, padding"),
        (MAPS, {"layers": ["attention"], "input_shape": [1, 8, 8]}, "unknown layer 'attention'"),
        (state_of((0, linear(3, 4)), (1, leaky() | {"alpha": torch.tensor(0.5)})), {}, "'1'.*'alpha'.*Leaky"),
        (state_of((0, linear(3, 4)), (1, leaky(reset=7))), {}, "no Leaky"),
        (state_of((0, {"weight": torch.zeros(2, 2, 3)}), (1, leaky())), {}, "'0' .*no layer"),
    ],
)
def test_what_the_file_does_not_tell_is_asked_for(state, given, message):
    with pytest.raises(CheckpointError, match=message):
        arguments_of(state, given)


def test_layers_that_do_not_fit_the_shapes_name_the_node(tmp_path):
    torch.save(MAPS, tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match=r"'linear4' \(linear\).*\(18,\)"):
        zoo.import_checkpoint(
            tmp_path / "theirs.pth",
            tmp_path / "out",
            layers=["conv", "leaky", "maxpool 2", "flatten", "linear", "leaky"],
            input_shape=[1, 8, 8],
        )
    assert not (tmp_path / "out").exists()


def dense(snn):
    kind = {"init_hidden": True}
    return (
        nn.Sequential(
            nn.Linear(12, 10), snn.Leaky(beta=0.9, **kind), nn.Dropout(), nn.Linear(10, 5),
            snn.Leaky(beta=0.5, reset_mechanism="zero", **kind),
        ),
        (12,),
        {},
    )  # fmt: skip


def learnt(snn):
    beta, threshold = torch.rand(10), torch.rand(10) + 0.5
    neuron = snn.Leaky(
        beta=beta, threshold=threshold, learn_beta=True, learn_threshold=True, graded_spikes_factor=2.0,
        init_hidden=True,
    )  # fmt: skip
    last = snn.Leaky(beta=0.9, reset_mechanism="none", init_hidden=True)
    return nn.Sequential(nn.Linear(12, 10), neuron, nn.Linear(10, 5, bias=False), last), (12,), {}


def convolutions(snn):
    make = lambda: snn.Leaky(beta=0.7, init_hidden=True, reset_delay=False)  # noqa: E731
    net = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2, bias=False), nn.BatchNorm2d(6), nn.MaxPool2d(2), make(),
        nn.Conv2d(6, 8, 3, stride=2), nn.AvgPool2d(2), make(), nn.Flatten(), nn.Linear(8, 5), make(),
    )  # fmt: skip
    words = [
        "conv padding=2", "norm", "maxpool 2", "leaky", "conv stride=2", "avgpool", "leaky", "flatten",
        "linear", "leaky",
    ]  # fmt: skip
    return net, (1, 12, 12), {"layers": words, "input_shape": [1, 12, 12], "reset_delay": False}


def on_grid(x, step):
    """Multiples of ``step``, whose sums are exact in any order."""
    return (x / step).round() * step


@pytest.mark.parametrize("build", [dense, learnt, convolutions])
def test_outputs_are_those_of_the_library(build, tmp_path):
    """Bit for bit, since no sum rounds."""
    snn = pytest.importorskip("snntorch", reason="the extra 'interop' is not installed")
    torch.manual_seed(0)
    theirs, shape, given = build(snn)
    theirs.eval()
    with torch.no_grad():
        for layer in theirs:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                for parameter in layer.parameters():
                    parameter.copy_(on_grid(parameter, 2**-6))
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    folder = zoo.import_checkpoint(tmp_path / "theirs.pth", tmp_path / "out", time_steps=STEPS, **given)
    ours = zoo.load(f"local-dir:{folder}")
    x = on_grid(torch.randn(STEPS, 4, *shape) * 3, 0.25)
    with torch.no_grad():
        expected = torch.stack([theirs(now) for now in x])
        got = ours(x, steps=True)
    assert expected.std() > 0, "a silent network proves nothing"
    assert torch.equal(got, expected)
