"""The LM-HT neuron of LMHT_SNN in its training form."""

import pytest
import torch

import spiking
from spiking import reference
from tests.parity.goldens import over_cases

pytestmark = pytest.mark.golden


def used(case):
    """The authors keep two matrices; maps use one, everything else the other."""
    return "mask" if "mask" in case else "mask_linear"


def build(case, backend):
    settings = case.settings
    neuron = spiking.LMHT(
        settings["T"],
        settings["L"],
        settings["threshold"],
        settings["initial_v_over_threshold"],
        settings["input_scale"],
        backend=backend,
    )
    with torch.no_grad():
        neuron.alpha.copy_(case["alpha"].reshape(()))
        neuron.mask.copy_(case[used(case)].reshape(neuron.mask.shape))
    return neuron


@over_cases("x", "alpha", "m", "v", "grad_mask*")
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_outputs_potentials_and_gradients(case, backend):
    neuron, x = build(case, backend), case["x"].clone().requires_grad_()
    assert len(x) == case.settings["T_in"]
    y = neuron(x)
    case.close("y", y, rtol=0, atol=1e-6)
    (y * case["grad_output"]).sum().backward()
    case.close("grad_x", x.grad)
    case.close("grad_alpha", neuron.alpha.grad)
    case.close(f"grad_{used(case)}", neuron.mask.grad)
    with torch.no_grad():  # the potential after step t is that of a neuron of t steps
        weight, leak = neuron.matrix(len(x)) * neuron.input_scale, neuron.leak()
        fixed = neuron.v_threshold, neuron.v_init
        after = [
            reference.lmht(x, weight[:t], leak[:t], *fixed, levels=neuron.levels)[1]
            for t in range(1, neuron.time_steps + 1)
        ]
        case.close("v", torch.stack(after), rtol=0)
        case.close("m", torch.stack(after) + y, rtol=0)
    case.everything_was_compared()
