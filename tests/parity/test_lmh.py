"""The LM-H neuron of STBP_LMH."""

import pytest

import spiking
from tests.parity.goldens import over_cases

pytestmark = pytest.mark.golden

NAMES = spiking.LMH.parameter_names


@over_cases("soma_minus_threshold")
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_outputs_potentials_and_gradients(case, backend):
    theta = case.settings["threshold"]
    surrogate = {"name": "triangle", "alpha": 1.0 / case.settings["gamma"]}
    neuron = spiking.LMH(theta, surrogate, backend)
    raw = {name: case[name].reshape(()) for name in NAMES}
    neuron.load_state_dict({**raw, "v_threshold": neuron.v_threshold})
    silent = spiking.LMH(1e9, surrogate, backend)  # its soma is the charge itself
    silent.load_state_dict({**raw, "v_threshold": silent.v_threshold})
    x = case["x"].clone().requires_grad_()
    y = neuron(x)
    case.equal("y", y)
    (y * case["grad_output"]).sum().backward()
    case.close("grad_x", x.grad)
    for name in NAMES:
        case.close(f"grad_{name}", getattr(neuron, name).grad)
    state = neuron.initial_state(x[0].detach())
    for t, x_t in enumerate(x.detach()):
        charge = silent.step(x_t, state)[1][1] - theta
        assert (charge - case["soma_minus_threshold"][t]).abs().max() <= 1e-5
        y_t, state = neuron.step(x_t, state)
        assert y_t.equal(y[t])
    case.everything_was_compared()
