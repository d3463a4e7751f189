"""ReLU and clipped ReLU are activations however they are written, and nothing else is taken for one."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conversion import convert
from conversion.graph.activations import activation_of
from conversion.graph.export import export
from conversion.graph.ops import module_path, op_name

zero = torch.zeros(())


def assigned(x):
    y = x.clone()
    y[y < 0] = 0.0
    return y


RELU = {
    "clamp": lambda x: x.clamp(min=0),
    "clamp in place": lambda x: x.clone().clamp_(min=0.0),
    "clip": lambda x: torch.clip(x, 0.0),
    "clamp_min": lambda x: torch.clamp_min(x, 0.0),
    "clamp by a tensor": lambda x: x.clamp(min=torch.tensor(0.0)),
    "threshold": lambda x: F.threshold(x, 0.0, 0.0),
    "threshold in place": lambda x: F.threshold_(x.clone(), 0.0, 0.0),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "maximum of one zero": lambda x: torch.maximum(torch.tensor(0.0), x),
    "maximum of new zeros": lambda x: torch.maximum(x, x.new_zeros(1)),
    "maximum of zeros outside": lambda x: torch.maximum(x, zero),
    "max": lambda x: torch.max(x, torch.zeros(x.shape)),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "where, zeros": lambda x: torch.where(x >= 0, x, torch.zeros_like(x)),
    "where not": lambda x: torch.where(x < 0, 0.0, x),
    "where neither": lambda x: torch.where(~(x > 0), torch.full_like(x, 0.0), x),
    "masked_fill": lambda x: x.masked_fill(x <= 0, 0.0),
    "mask": lambda x: x * (x > 0),
    "mask of floats": lambda x: (x > 0).float() * x,
    "mask of its type": lambda x: x.gt(0).type_as(x) * x,
    "heaviside": lambda x: x * torch.heaviside(x, torch.tensor(0.0)),
    "sign": lambda x: x * (x.sign() + 1) / 2,
    "half of x and its size": lambda x: 0.5 * (x + x.abs()),
    "minus minimum": lambda x: -torch.minimum(-x, torch.zeros_like(x)),
    "leaky by nothing": lambda x: F.leaky_relu(x, 0.0),
    "elu of nothing": lambda x: F.elu(x, alpha=0.0),
    "assignment": assigned,
}
CLIPPED = {
    "clamp(0, 1)": (lambda x: x.clamp(0, 1), 1.0),
    "clip(0, 6)": (lambda x: torch.clip(x, 0.0, 6.0), 6.0),
    "hardtanh in place": (lambda x: F.hardtanh_(x.clone(), 0.0, 2.0), 2.0),
    "relu, then clamp": (lambda x: x.relu().clamp(max=4.0), 4.0),
    "clamp, then relu": (lambda x: x.clamp_max(4.0).relu(), 4.0),
    "minimum and maximum": (lambda x: torch.maximum(torch.minimum(x, torch.tensor(6.0)), zero), 6.0),
    "where": (lambda x: torch.where(x < 0, 0.0, torch.where(x > 3, 3.0, x)), 3.0),
    "scaled": (lambda x: 6 * (x / 6).clamp(0, 1), 6.0),
    "two bounds of tensors": (lambda x: x.clamp(torch.tensor(0.0), torch.tensor(1.5)), 1.5),
}
OTHERS = {
    "another slope": lambda x: 2 * x.clamp(min=0),
    "shifted": lambda x: x.clamp(min=0.1),
    "threshold above 0": lambda x: F.threshold(x, 0.5, 0.0),
    "value below": lambda x: F.threshold(x, 0.0, -1.0),
    "symmetric": lambda x: x.clamp(-1, 1),
    "absolute": lambda x: x.abs(),
    "leaky": lambda x: torch.where(x > 0, x, 0.01 * x),
    "mask of another tensor": lambda x: x * (x.flip(1) > 0),
    "mask of a mean": lambda x: x * (x > x.mean()),
    "per channel": lambda x: torch.maximum(x, torch.tensor([0.0, 0.0, 0.0, 1e-3]).view(4, 1, 1)),
    "step": lambda x: (x > 0).float(),
    "broadcast": lambda x: torch.maximum(x[:, :1], torch.zeros_like(x)),
}


class Act(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.act = act

    def forward(self, x):
        return self.act(x)


class Net(nn.Module):
    """Activations between two layers, each on a signal of its own."""

    def __init__(self, *acts):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 5)
        self.acts = nn.ModuleList(map(Act, acts))
        self.low, self.high = nn.Parameter(torch.zeros(())), nn.Parameter(torch.ones(()))
        self.register_buffer("bound", torch.ones(()))

    def forward(self, x):
        x = self.a(x)
        y = sum(self.b(act(x + number)) for number, act in enumerate(self.acts))
        return self.head(y.mean((2, 3)))


def images():
    return torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def operations(net):
    """The operators of each activation in the exported graph, and what the rectifiers among them are."""
    names, found = {}, {}
    for node in export(net.eval(), images()).graph.nodes:
        path = module_path(node)
        if node.op == "call_function" and path.startswith("acts."):
            names.setdefault(int(path[5:]), []).append(op_name(node.target))
            if op_name(node.target) in ("relu", "hardtanh"):
                found[int(path[5:])] = activation_of(node)
    return names, found


def test_every_spelling_of_relu_is_one():
    for act in RELU.values():
        torch.testing.assert_close(act(images()), images().relu())
    names, found = operations(Net(*RELU.values()))
    for number, name in enumerate(RELU):
        assert names[number] == ["relu"], (name, "nothing of the fragment stays")
        assert found[number].kind == "relu", name


def test_every_spelling_of_clipped_relu_is_one():
    for act, high in CLIPPED.values():
        torch.testing.assert_close(act(images()), images().clamp(0, high))
    names, found = operations(Net(*(act for act, _ in CLIPPED.values())))
    for number, (name, (_, high)) in enumerate(CLIPPED.items()):
        assert names[number] == ["hardtanh"], name
        assert (found[number].kind, found[number].high) == ("clipped", high), name


def test_nothing_else_becomes_a_rectifier():
    names, found = operations(Net(*OTHERS.values()))
    for number, name in enumerate(OTHERS):
        if name == "another slope":
            assert sorted(names[number]) == ["mul", "relu"]
        else:
            assert number not in found, name


def test_bounds_that_are_learnt_or_saved_stay_operations():
    class Learnt(Net):
        def forward(self, x):
            x = self.b(self.a(x))
            x = x.clamp(self.low, self.high) + x.clamp(zero, self.bound)
            return self.head(x.mean((2, 3)))

    calls = [op_name(n.target) for n in export(Learnt().eval(), images()).graph.nodes]
    assert calls.count("clamp") == 2
    assert "hardtanh" not in calls


@pytest.mark.parametrize("method", ["qcfs", "srp", "cos", "parallel", "ecmt", "dcgs"])
def test_every_method_takes_them_for_activations(method):
    x = images()
    snn, plain = (
        convert(Net(act).eval(), method, 4, x, progress=False)
        for act in (lambda y: y * (y > 0), lambda y: y.relu())
    )
    assert [(r.name, r.activation) for r in snn.report.rows] == [
        (r.name, r.activation) for r in plain.report.rows
    ]
    assert torch.equal(snn(x), plain(x))
