"""Graphs that are made functional without tracing: the same as torch makes, or left to it."""

from collections import Counter

import pytest
import timm
import torch
from torch import fx, nn
from torch.nn import functional as F

import zoo
from conversion.graph import decompose
from conversion.graph.directly import directly
from conversion.graph.export import export

NETWORKS = {
    "ours": lambda: zoo.create("qcfs_resnet20", planes=(4, 8, 8), num_classes=5),
    "resnet": lambda: timm.create_model("resnet10t", num_classes=5),
    "vit": lambda: timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1, num_classes=5
    ),
}


def exported(model, x):
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    return torch.export.export(model, (x,), dynamic_shapes=dynamic, strict=False)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_is_the_one_that_tracing_gives(name, monkeypatch):
    torch.manual_seed(0)
    model, x = NETWORKS[name]().eval(), torch.randn(2, 3, 32, 32)
    assert directly(exported(model, x)) is not None, "it is for such networks"
    found = []
    for way in (directly, lambda program: None):
        monkeypatch.setattr(decompose, "directly", way)
        program = export(model, x)
        calls = Counter(str(n.target) for n in program.graph.nodes if n.op.startswith("call"))
        calls.pop("aten.sym_size.int", None)
        found.append((calls, fx.GraphModule(program.root, program.graph)(torch.full((3, 3, 32, 32), 0.3))))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(*pair) for pair in zip(found[0][1], found[1][1], strict=True))


class Of(nn.Module):
    """A network that is one function of images ``[B, 3, 8, 8]``."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.bn, self.function = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), function

    def forward(self, x):
        return self.function(self, x)


def used_again(net, x):
    y = net.conv(x)
    return y.relu_() + F.relu(-y)


def view_of_it(net, x):
    y = net.conv(x)
    flat = y.flatten(2)
    y.mul_(2.0)
    return flat


def through_a_view(net, x):
    y = net.conv(x)
    y.flatten(2).relu_()
    return y


def through_a_dropout(net, x):
    y = net.conv(x)
    F.dropout(y, 0.5, training=False).relu_()
    return y


def of_the_image(net, x):
    return x.relu_() + net.conv(x)


def of_a_weight(net, x):
    return net.conv(x) * net.bn.running_var.mul_(1.0)[:, None, None]


def wider(net, x):
    return net.conv(x).half().add_(net.bn(x))


def norm_of_the_batch(net, x):
    return F.batch_norm(net.conv(x), net.bn.running_mean, net.bn.running_var, training=True)


SEEN = [view_of_it, through_a_view, of_the_image, of_a_weight, wider, norm_of_the_batch]


@pytest.mark.parametrize("function", [used_again, through_a_dropout, *SEEN])
def test_what_others_see_is_left_to_tracing(function):
    net, x = Of(function).eval(), torch.randn(2, 3, 8, 8)
    graph = directly(exported(net, x.clone()))
    assert graph is None or function not in SEEN
    if graph is not None:  # torch has noted that it is one tensor
        assert torch.equal(graph(x.clone()), net(x.clone()))


@pytest.mark.parametrize(
    "function",
    [
        lambda net, x: net.bn(net.conv(x)).relu_(),
        lambda net, x: net.conv(x).add_(net.bn(x)).mul_(3.0).relu_().flatten(1),
        lambda net, x: F.dropout(net.conv(x).relu_(), 0.5, training=False).contiguous().reshape(-1, 192),
        lambda net, x: F.hardtanh_(net.conv(x), 0.0, 6.0),
    ],
)
def test_what_nobody_sees_is_out_of_place(function):
    net = Of(function).eval()
    graph = directly(exported(net, torch.randn(2, 3, 8, 8)))
    calls = [n.target for n in graph.graph.nodes if n.op == "call_function"]
    assert not [t for t in calls if isinstance(t, torch._ops.OpOverload) and t._schema.is_mutable]
    graph.graph.lint()
    graph.recompile()
    x = torch.randn(5, 3, 8, 8)
    assert torch.equal(graph(x), net(x.clone()))
