"""PLIF, KLIF, CLIF and GLIF: forward, and gradients of currents and parameters."""

import pytest
import torch

import spiking
from tests.parity.goldens import over_cases

pytestmark = pytest.mark.golden

ARGUMENTS = ("init_tau", "tau", "decay_input", "scale_reset", "v_threshold", "v_reset", "detach_reset")


def build(case, backend):
    settings = case.settings
    arguments = {k: settings[k] for k in ARGUMENTS if k in settings}
    if settings["neuron"] == "GLIF":
        arguments = {"time_steps": settings["T"]}
        if settings["channel_wise"]:
            arguments["channels"] = case["x"].shape[2]
    surrogate = {"name": settings["surrogate"], **settings["surrogate_params"]}
    return spiking.get_neuron(settings["neuron"], surrogate=surrogate, backend=backend, **arguments)


@over_cases("x", "spike", where=lambda g: g.settings.get("neuron") in ("PLIF", "KLIF", "CLIF", "GLIF"))
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_spikes_states_and_gradients(case, backend):
    neuron = build(case, backend)
    prefix = "param." if case.under("param.") else ""
    names = [name for name, _ in neuron.named_parameters()]
    neuron.load_state_dict({name: case[prefix + name] for name in names}, strict=True)
    x = case["x"].clone().requires_grad_()
    spikes = neuron(x)
    case.equal("spike", spikes)
    (spikes * case["grad_output"]).sum().backward()
    case.close("grad_x", x.grad)
    for name, parameter in neuron.named_parameters():
        case.close(f"grad.{name}" if prefix else f"grad_{name}", parameter.grad)
    state = None
    for t in range(len(x) if neuron.causal else 0):
        s, state = neuron.step(x[t].detach(), state)
        assert s.equal(spikes[t])
        for key, value in zip("vm", state if isinstance(state, tuple) else (state,), strict=False):
            torch.testing.assert_close(value.detach(), case[key][t], rtol=1e-4, atol=1e-5)
    if not neuron.causal:
        case.close("v_last", neuron.run(x.detach(), None, True)[1][0])
    case.everything_was_compared()
