"""IF and LIF against SpikingJelly's multi-step forward and full back-propagation through time."""

import pytest

import spiking
from tests.parity.goldens import over_cases

pytestmark = pytest.mark.golden

ARGUMENTS = ("tau", "decay_input", "v_threshold", "v_reset", "detach_reset")


def build(settings, **changes):
    arguments = {k: settings[k] for k in ARGUMENTS if k in settings}
    surrogate = {"name": settings["surrogate"], **settings["surrogate_params"]}
    return spiking.get_neuron(settings["neuron"], **{**arguments, "surrogate": surrogate, **changes})


@over_cases("x", "spike", where=lambda g: g.settings.get("neuron") in ("IF", "LIF"))
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_spikes_potentials_and_gradients(case, backend):
    neuron = build(case.settings, backend=backend)
    silent = build(case.settings, backend=backend, v_threshold=1e9)  # its state is the charge itself
    x = case["x"].clone().requires_grad_()
    spikes = neuron(x)
    case.equal("spike", spikes)
    state = neuron.initial_state(x[0])
    for t, x_t in enumerate(x.detach()):
        if "h" in case:
            h = silent.step(x_t, state)[1]
            assert (h - case["h"][t]).abs().max() <= 1e-5
        s, state = neuron.step(x_t, state)
        assert s.equal(spikes[t])
        if "v" in case:
            assert (state - case["v"][t]).abs().max() <= 1e-5
    if "grad_x" in case:
        (spikes * case["grad_output"]).sum().backward()
        case.close("grad_x", x.grad)
    case.everything_was_compared()
