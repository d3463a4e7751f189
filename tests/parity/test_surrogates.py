"""All surrogates: step, slope and primitive, also exactly at the break points."""

import pytest

from spiking import get_surrogate, list_surrogates
from tests.parity.goldens import ABSENT, FILES, Golden, over_cases

pytestmark = pytest.mark.golden


SURROGATES = over_cases("spike", "grad", "!grad_output", where=lambda g: "params" in g.settings)


@SURROGATES
def test_step_slope_and_primitive(case):
    name = case.case
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


def test_every_surrogate_of_ours_has_a_case():
    cases = [Golden(g.path, name) for g in FILES for name in g.case_names]
    names = {c.case for c in cases if "params" in c.settings}
    if not names:
        pytest.skip(ABSENT)
    assert set(list_surrogates()) == names
