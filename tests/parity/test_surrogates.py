"""All surrogates: step, slope and primitive, also exactly at the break points."""

import pytest
import torch

from spiking import get_surrogate, list_surrogates

FILE = "sj_surrogates"
GOLDEN_FILES = {f"direct_training/{FILE}"}
pytestmark = pytest.mark.golden


def test_step_slope_and_primitive(case, request):
    name = request.node.callspec.id
    surrogate = get_surrogate(name, **case.settings["params"])
    x = case["x"].clone().requires_grad_()
    spikes = surrogate(x)
    case.equal("spike", spikes)
    (spikes * case["grad_output"]).sum().backward()
    case.close("grad", x.grad, rtol=1e-5, atol=1e-6)
    if "primitive" in case:
        # the released S2NN adds 1e-5 inside its logarithm
        case.close("primitive", surrogate.primitive(x.detach()), rtol=1e-5, atol=2e-5)
    else:
        with pytest.raises(NotImplementedError):
            surrogate.primitive(x)
    case.everything_was_compared()


def test_every_surrogate_of_ours_has_a_case(direct):
    names = direct(FILE, "").whole["cases"]
    assert set(list_surrogates()) == set(names)
    assert torch.tensor(0.0).ge(0)
