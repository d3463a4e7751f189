"""The converting neurons inside compiled and exported programs."""

import pytest
import torch
from torch import nn

from conversion.methods.cos import cos
from conversion.methods.integrate_fire import integrate_fire
from conversion.methods.parallel import parallel
from conversion.methods.srp import srp


def corrected(x):
    theta, phi = torch.tensor([0.8, 1.3, 0.0]).reshape(3, 1), torch.full((3, 1), 0.1)
    return parallel(x, theta, phi, phi)


NEURONS = {
    "integrate and fire": lambda x: integrate_fire(x)[0],
    "srp": lambda x: srp(x, 3)[0],
    "cos": lambda x: cos(x, 4),
    "cos iterated": lambda x: cos(x, 4, 4),
    "parallel": parallel,
    "parallel corrected": corrected,
}


def drive(batch=4):
    return torch.randn(6, batch, 3, 20, generator=torch.Generator().manual_seed(batch)) * 1.5


@pytest.mark.compile
@pytest.mark.parametrize("name", NEURONS)
def test_compiled_in_one_graph(name):
    neuron, x = NEURONS[name], drive().requires_grad_()
    spikes = torch.compile(neuron, fullgraph=True, backend="aot_eager")(x)
    (grad,) = torch.autograd.grad(spikes.sum(), x)
    want = neuron(x)
    assert torch.equal(spikes, want)
    torch.testing.assert_close(grad, torch.autograd.grad(want.sum(), x)[0])


@pytest.mark.export
@pytest.mark.parametrize("name", NEURONS)
def test_exported_for_any_batch(name):
    class Model(nn.Module):
        def forward(self, x):
            return NEURONS[name](x)

    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(Model().eval(), (drive(),), dynamic_shapes={"x": {1: batch}})
    for size in (2, 7):
        assert torch.equal(program.module()(drive(size)), NEURONS[name](drive(size)))
