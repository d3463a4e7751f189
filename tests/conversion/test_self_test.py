"""The self-test of conversions: right ones pass whatever rounding does, and no wrong rule does."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conversion import ConversionError, prepare, self_test
from conversion.exact import SMOOTH, exact
from conversion.graph import layers, ops, over_time
from conversion.graph.signals import Signals
from spiking.qcfs import QCFS

PIXELS = 8


def images(count=2, seed=1):
    return torch.randn(count, 3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- right conversions


class Deep(nn.Module):
    """A residual network whose rounding is amplified from block to block, by levels or by weights."""

    def __init__(self, depth, activation, gain=1.6, width=8):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), activation())
            for _ in range(depth)
        )
        self.head = nn.Linear(width, 5)
        for block in self.blocks:
            nn.init.normal_(block[0].weight, std=gain * (9 * width) ** -0.5)
            nn.init.uniform_(block[1].bias, -0.3, 0.5)

    def forward(self, x):
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            x = block(x) if number % 2 else 0.5 * x + block(x)
        return self.head(x.mean((2, 3)))


ACTIVATIONS = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    **{f"qcfs{levels}": lambda levels=levels: QCFS(levels, 1.5) for levels in (1, 2, 4, 8, 16)},
}
METHODS = {
    **{name: (name, {}) for name in ("qcfs", "srp", "cos", "parallel", "ecmt", "dcgs")},
    "rate": ("dcgs", {"code": "rate"}),
    "folded": ("qcfs", {"fold_batch_norm": True}),
}


def deep(activation, depth, seed):
    torch.manual_seed(seed)
    return Deep(depth, ACTIVATIONS[activation]).eval()


def differences(activation, depth, method, seed):
    model = deep(activation, depth, seed)
    name, settings = METHODS[method]
    snn = prepare(model, name, 4, input_size=(3, PIXELS, PIXELS), **settings)
    return [self_test(snn, model, images(seed=10 * seed + k)) for k in range(1)]


CASES = list(itertools.product(ACTIVATIONS, (2, 6), METHODS))


@pytest.mark.parametrize(("activation", "depth", "method"), CASES[::17])
def test_right_conversions_pass(activation, depth, method):
    assert max(differences(activation, depth, method, seed=0)) < (1e-4 if method == "folded" else 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_two_hundred_right_conversions_pass(seed):
    done = [differences(*case, seed=seed) for case in CASES]
    assert len(done) >= 100


@torch.no_grad()
def renumbered(model):
    """The same network with its hidden channels the other way round: the same sums in another order."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight.flip(0)
            module.weight.copy_(weight if weight.shape[1] == 3 else weight.flip(1))
            module.bias.copy_(module.bias.flip(0))
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.copy_(module.weight.flip(0))
            module.bias.copy_(module.bias.flip(0))
    model.head.weight.copy_(model.head.weight.flip(1))
    return model


def test_rounding_alone_changes_levels_of_float32():
    """What the self-test has to see through: in float32 a right order of sums shows in the logits.

    Not in those of every network: it takes a sum that lies on the edge of a level.
    """
    x, apart = images(64), 0.0
    for seed in range(12):
        model, other = deep("qcfs16", 40, seed), renumbered(deep("qcfs16", 40, seed))
        largest = model(x).abs().max()
        with exact():
            assert (model(x) - other(x)).abs().max() < 1e-12 * largest
        apart = max(apart, float((model(x) - other(x)).abs().max() / largest))
        if apart > 1e-4:
            return
    pytest.fail(f"no order of sums showed: {apart:.1g} at most")


# ---------------------------------------------------------------- wrong rules


class Between(nn.Module):
    """Operations between two convolutions, on maps ``[B, 8, 6, 6]`` that have come through neurons."""

    def __init__(self, *operations):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.LazyLinear(5)
        self.norm, self.groups = nn.LayerNorm(6), nn.GroupNorm(2, 8)
        self.mapped, self.batch = nn.Linear(6, 6), nn.BatchNorm2d(8)
        self.operations = operations
        self.eval()
        self(torch.zeros(2, 3, PIXELS, PIXELS))

    def forward(self, x):
        x = self.second(self.first(x).relu())
        return self.head(torch.cat([f(self, x).flatten(1) for f in self.operations], 1).relu())


def attention(_, x):
    return F.scaled_dot_product_attention(x, x.flip(1), x)


def weighted(_, x):
    return (x @ x.transpose(2, 3)).softmax(-1) @ x


def masked(_, x):
    return torch.where(torch.eye(6, dtype=torch.bool), 2 * x, x)


OPERATIONS = {
    "linear": lambda net, x: net.mapped(x),
    "conv_transpose2d": lambda net, x: F.conv_transpose2d(x, torch.ones(8, 8, 2, 2) / 9),
    "batch_norm": lambda net, x: net.batch(x),
    "layer_norm": lambda net, x: net.norm(x),
    "group_norm": lambda net, x: net.groups(x),
    "avg_pool2d": lambda _, x: F.avg_pool2d(x, 2),
    "adaptive_avg_pool2d": lambda _, x: F.adaptive_avg_pool2d(x, 4),
    "max_pool2d": lambda _, x: F.max_pool2d(x, 2),
    "scaled_dot_product_attention": attention,
    "matmul": weighted,
    "softmax": lambda _, x: (4 * x).softmax(1),
    "mul": lambda _, x: x * x.flip(1),
    "div": lambda _, x: x / (1 + x.square()),
    "einsum": lambda _, x: torch.einsum("bchw,bdhw->bcd", x, x),
    "add": lambda _, x: torch.add(x, x.flip(1), alpha=0.3),
    "sub": lambda _, x: x - x.flip(1),
    "cat": lambda _, x: torch.cat([x, 2 * x], 1),
    "gelu": lambda _, x: F.gelu(x),
    "sigmoid": lambda _, x: x * x.sigmoid(),
    "hardtanh": lambda _, x: F.hardtanh(x),
    "leaky_relu": lambda _, x: F.leaky_relu(x),
    "permute": lambda _, x: x.permute(0, 2, 3, 1),
    "reshape": lambda _, x: x.reshape(-1, 2, 4, 6, 6).sum(1),
    "transpose": lambda _, x: x.transpose(1, 2),
    "flip": lambda _, x: x.flip(1),
    "roll": lambda _, x: x.roll(1, 2),
    "slice": lambda _, x: x[:, 1:],
    "index": lambda _, x: x[:, torch.tensor([1, 0, 3, 2])],
    "pad": lambda _, x: F.pad(x, (1, 1, 1, 1), "replicate"),
    "mean": lambda _, x: x.mean((1, 3)),
    "sum": lambda _, x: x.sum(2),
    "amax": lambda _, x: x.amax(1),
    "std": lambda _, x: x.std(1),
    "upsample_bilinear2d": lambda _, x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "upsample_nearest2d": lambda _, x: F.interpolate(x, scale_factor=2),
    "where": masked,
    "round": lambda _, x: (3 * x).round(),
}


def passes(snn, model):
    try:
        self_test(snn, model, images())
    except ConversionError:
        return False
    return True


def refused(model, method="qcfs", **settings):
    snn = prepare(model, method, 4, input_size=(3, PIXELS, PIXELS), **settings)
    with pytest.raises(ConversionError, match=r"self-test failed.*error of the conversion rules"):
        self_test(snn, model, images())


def slightly_wrong(result):
    """Off by a hundred-thousandth in one channel."""
    wrong = result.clone()
    wrong[:, 1] *= 1 + 1e-5
    return wrong


def test_every_operation_that_computes_something_else_is_caught(monkeypatch):
    """Off by a hundred-thousandth in one channel, in each operation of a graph over time in turn."""
    for name in ("linear", "batch_norm"):
        monkeypatch.delitem(layers.LAYERS, name)  # stay functions, in which an error can be planted
    model = Between(*OPERATIONS.values())
    snn = prepare(model, "qcfs", 4, input_size=(3, PIXELS, PIXELS))
    assert self_test(snn, model, images()) < 1e-13
    calls = [n for n in snn.graph.nodes if n.op == "call_function"]
    missed = []
    for name in OPERATIONS:
        node = next(n for n in calls if ops.op_name(n.target).lstrip("_") == name)
        right = node.target
        node.target = lambda *args, right=right, **kwargs: slightly_wrong(right(*args, **kwargs))
        snn.recompile()
        if passes(snn, model):
            missed.append(name)
        node.target = right
    assert not missed


@pytest.mark.parametrize("name", ["conv2d", "linear", "batch_norm"])
def test_layers_that_come_back_wrong_are_caught(name, monkeypatch):
    build = layers.LAYERS[name]

    def wrong(node, root):
        layer = build(node, root)
        weight = nn.Parameter(slightly_wrong(layer.module.weight.unsqueeze(0))[0].detach())
        layer.module.weight = weight
        return layer

    monkeypatch.setitem(layers.LAYERS, name, wrong)
    refused(Between(lambda net, x: net.batch(net.mapped(x))))


FAST = ["layer_norm", "max_pool2d", "scaled_dot_product_attention", "matmul", "softmax", "mul", "gelu"]
SLOW = ["group_norm", "div", "einsum", "sigmoid", "hardtanh", "leaky_relu", "amax", "std", "round"]
NONLINEAR = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.mark.parametrize("name", NONLINEAR)
def test_every_nonlinear_operation_that_runs_on_steps_is_caught(name, monkeypatch):
    """Steps that are all alike would let a nonlinear operation pass for an affine one."""
    role = Signals.role
    found = []

    def affine(self, node):
        if node.op == "call_function" and ops.op_name(node.target) == name:
            found.append(node)
            return "affine"
        return role(self, node)

    monkeypatch.setattr(Signals, "role", affine)
    refused(Between(OPERATIONS[name]), "qcfs")
    assert found


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_tested(method, monkeypatch):
    """An addition that is off by a ten-thousandth is caught behind the neurons of every method."""
    copied = over_time.GraphOverTime.copied

    def wrong(self, node, arg):
        new = copied(self, node, arg)
        if ops.op_name(node.target) == "add":
            new.kwargs = {"alpha": 0.3 * (1 + 1e-4)}
        return new

    monkeypatch.setattr(over_time.GraphOverTime, "copied", wrong)
    name, settings = METHODS[method]
    refused(Between(OPERATIONS["add"]), name, **settings)


# ---------------------------------------------------------------- arithmetic without rounding and jumps


def test_functions_without_jumps_follow_those_with_some():
    x = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    functions = {"round": (), "floor": (), "ceil": (), "fulgurite.qcfs": (torch.ones(1), 4, "floor_first")}
    for name, rest in functions.items():
        y = SMOOTH[name](x, *rest)
        space, _, operator = name.rpartition(".")
        stepped = getattr(getattr(torch.ops, space or "aten"), operator)(x, *rest)
        assert float((y - stepped).abs().max()) <= 0.51
        assert float(y.diff().abs().max()) < 1.51 * float(x.diff().max()), "a jump"
        assert float(y.diff().min()) >= 0.0


def test_exact_arithmetic_is_that_of_a_float64_copy():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    model = nn.Sequential(
        nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.Flatten(1), nn.Unflatten(1, (6, 8)), layer
    )
    model.eval()
    x = torch.randn(2, 4, 8)
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(x.double())
        with exact():
            found = model(x)
    assert found.dtype == torch.float64
    assert all(p.dtype == torch.float32 for p in model.parameters())
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


def test_numbers_of_the_precision_are_those_of_the_export():
    def scaled(_, x):
        return x / (x.square().mean(1, keepdim=True) + 1e4 * torch.finfo(x.dtype).eps).sqrt().to(x.dtype)

    for model in (Between(scaled), Between(scaled).bfloat16(), Between(scaled).double()):
        snn = prepare(model, "qcfs", 4, input_size=(3, PIXELS, PIXELS))
        assert self_test(snn, model, images().to(model.head.weight.dtype)) < 1e-13


def test_a_random_source_is_named():
    class Random(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

        def forward(self, x):
            x = self.conv(x).relu()
            return self.head(x.mean((2, 3))) + self.noise()

        def noise(self):
            return 0.0

    model = Random().eval()
    snn = prepare(model, "qcfs", 4, input_size=(3, PIXELS, PIXELS))
    model.noise = lambda: torch.randn(5)
    with pytest.raises(ConversionError, match="two answers to the same images"):
        self_test(snn, model, images())
