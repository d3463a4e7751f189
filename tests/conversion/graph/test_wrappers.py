"""What runs another module is looked through, and logits are found in what a source returns."""

import collections
import dataclasses

import pytest
import timm.utils
import torch
from torch import nn

from conversion import ConversionError, convert, prepare, self_test
from conversion.graph.wrappers import logits_of, unwrapped


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    loss: torch.Tensor | None = None


Pair = collections.namedtuple("Pair", "logits features")
CONTAINERS = {
    "tuple": lambda y: (y,),
    "list": lambda y: [y],
    "mapping of one": lambda y: {"out": y},
    "mapping": lambda y: {"features": y.abs(), "logits": y},
    "dataclass": Output,
    "named tuple": lambda y: Pair(y, y.abs()),
    "nested": lambda y: ({"logits": y},),
}


class Net(nn.Module):
    def __init__(self, returns=lambda y: y):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
        )
        self.returns = returns

    def forward(self, x):
        return self.returns(self.body(x))


def images():
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def net(returns=lambda y: y):
    torch.manual_seed(0)
    return Net(returns).eval()


def test_logits_are_found_in_any_container():
    expected = net()(images())
    for name, returns in CONTAINERS.items():
        found = logits_of(net(returns)(images()))
        assert torch.equal(found, expected), name


@pytest.mark.parametrize("name", ["tuple", "dataclass"])
def test_a_source_that_returns_a_container_converts(name):
    snn = convert(net(CONTAINERS[name]), "qcfs", 4, images(), progress=False)
    plain = convert(net(), "qcfs", 4, images(), progress=False)
    assert torch.equal(snn(images()), plain(images()))
    assert list(snn.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize(
    ("returns", "what"),
    [
        (lambda y: (y, y), "tuple of 2 values"),
        (lambda y: {"out": y, "aux": y}, "dict of out, aux"),
        (lambda y: None, "NoneType"),
    ],
)
def test_what_holds_no_logits_is_refused_before_calibration(returns, what):
    with pytest.raises(ConversionError, match=f"must return logits.*it returns {what}"):
        prepare(net(returns), "qcfs", 4, input_size=(3, 6, 6))


WRAPPED = {
    "DataParallel": nn.DataParallel,
    "compiled": torch.compile,
    "averaged": torch.optim.swa_utils.AveragedModel,
    "moving average": timm.utils.ModelEmaV3,
    "nested": lambda model: nn.DataParallel(torch.compile(model)),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers_are_looked_through(name):
    model = net()
    inside = unwrapped(WRAPPED[name](model).eval())
    assert type(inside) is Net
    assert list(inside.state_dict()) == list(model.state_dict())


def test_a_wrapped_source_converts():
    wrapped = nn.DataParallel(net())  # in training mode itself, as wrappers come
    snn = convert(wrapped, "qcfs", 4, images(), progress=False)
    assert "body.0.weight" in snn.state_dict()
    assert self_test(snn, wrapped, images()) < 1e-12


def test_a_wrapper_inside_does_nothing_and_keeps_its_path():
    model = net()
    model.body = nn.DataParallel(model.body).eval()
    snn = prepare(model, "qcfs", 4, input_size=(3, 6, 6))
    assert "body.module.0.weight" in snn.state_dict()
    assert self_test(snn, model, images()) < 1e-12


def test_programs_without_python_are_refused_with_the_reason():
    for model in (torch.jit.trace(net(), images()), net()):
        if isinstance(model, Net):
            model.body = torch.jit.trace(model.body, images())
        with pytest.raises(ConversionError, match=r"TorchScript program.*scripted or traced from"):
            prepare(model, "qcfs", 4, input_size=(3, 6, 6))
