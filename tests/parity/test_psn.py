"""The parallel spiking neurons."""

import pytest
import torch

import spiking
from tests.parity.goldens import over_cases

pytestmark = pytest.mark.golden


def build(settings):
    surrogate = {"name": settings["surrogate"], **settings["surrogate_params"]}
    if settings["neuron"] == "SlidingPSN":
        return spiking.SlidingPSN(settings["k"], settings["exp_init"], surrogate)
    if settings["neuron"] == "MaskedPSN":
        return spiking.MaskedPSN(settings["T"], settings["k"], settings["lambda_init"], surrogate)
    return spiking.PSN(settings["T"], surrogate)


def banded(weight, steps):
    """The ``[T, T]`` matrix of a sliding filter."""
    out, order = torch.zeros(steps, steps), len(weight)
    for i in range(steps):
        for j in range(max(0, i - order + 1), i + 1):
            out[i, j] = weight[order - 1 - (i - j)]
    return out


@over_cases("x", "spike", where=lambda g: g.settings.get("neuron", "").endswith("PSN"))
def test_spikes_and_gradients(case):
    neuron = build(case.settings)
    with torch.no_grad():
        neuron.weight.copy_(case["weight"])
        neuron.bias.copy_(case["bias"])
    x = case["x"].clone().requires_grad_()
    spikes = neuron(x)
    case.equal("spike", spikes)
    (spikes * case["grad_output"]).sum().backward()
    case.close("grad_x", x.grad)
    case.close("grad_weight", neuron.weight.grad)
    case.close("grad_bias", neuron.bias.grad)
    if "effective_weight" in case:
        case.close("effective_weight", neuron.masked_weight())
    if "gemm_weight" in case:
        case.close("gemm_weight", banded(neuron.weight.detach(), len(x)))
    if "spike_single_step" in case:
        state, steps = None, []
        for x_t in x.detach():
            s, state = neuron.step(x_t, state)
            steps.append(s)
        case.equal("spike_single_step", torch.stack(steps))
    else:
        assert not neuron.causal
    case.everything_was_compared()
