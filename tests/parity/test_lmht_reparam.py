"""The LM-HT neuron and its single-threshold form on the same windows."""

import pytest
import torch

import spiking
from conversion import lmht
from tests.parity.goldens import over_cases

pytestmark = pytest.mark.golden


@over_cases("x_single", "window_sum")
def test_windows(case):
    settings = case.settings
    L, T = settings["L"], settings["T"]
    neuron = spiking.LMHT(T, L, settings["threshold"])
    with torch.no_grad():
        neuron.alpha.copy_(case["alpha"].reshape(()))
        neuron.mask.copy_(case["mask"].reshape(T, T))
        single = lmht.single_threshold(neuron)
        x = case["x_single"].unflatten(0, (T, L)).sum(1)
        case.close("x", x, rtol=0)
        case.close("alpha_single", single.leak(), rtol=0)
        case.close("omega_single", single.matrix(), rtol=0)
        y, y_single = neuron(case["x"]), single(case["x_single"])
    case.close("y", y, rtol=0)
    case.close("y_single", y_single, rtol=0)
    sums = y_single.unflatten(0, (T, L)).sum(1)
    case.close("window_sum", sums, rtol=0)
    equal = (sums - y).abs() < 1e-4
    assert torch.equal(equal, case["equal"].bool())
    assert equal.float().mean().item() == pytest.approx(settings["equal_fraction"])
    if settings["kind"] == "exact":
        assert equal.all()
    case.everything_was_compared()
