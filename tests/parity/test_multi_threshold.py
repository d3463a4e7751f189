"""The neurons of ECMT and DCGS, in the step-by-step form and in the fast ones."""

import pytest
import torch
from torch.nn.functional import linear

from spiking.functional import codes, multi_threshold
from spiking.levels import Levels
from spiking.reference import multi_threshold as multi_threshold_reference
from tests.parity.goldens import over_files

pytestmark = pytest.mark.golden

# name in the authors' code -> kind, whether its threshold is the only level
NEURONS = {
    "IF": ("positive", True),
    "IF_with_neg": ("relu", True),
    "IF_with_neg_line": ("identity", True),
    "MTH": ("positive", False),
    "MTH_with_neg": ("relu", False),
    "MTH_with_neg_line": ("identity", False),
    "IF_diff": ("relu", True),
    "MTH_diff": ("relu", False),
    "MTH_diff_line": ("identity", False),
}


@over_files("*.spike_sum", "*.level", "*.membrane")
def test_ecmt(golden):
    data = golden
    tolerance = data.sidecar["tolerance"]
    for name, case in data.sidecar["cases"].items():
        assert case["gap"] == 2
        p, q, n = case["base_positive"], case["base_negative"], case["num_thresholds"]
        levels, x, v = Levels.smallest(p, q, n), data[f"{name}.input"], None
        for form in (multi_threshold_reference, multi_threshold):
            s, _ = form.rate_coded(x, levels)
            data.close(f"{name}.spike_sum", s, atol=tolerance["spike_sum"])
            assert torch.equal(level_of(s, levels), data[f"{name}.level"].long())
        v, potentials = None, []
        for x_t in x.split(1):
            _, v = multi_threshold.rate_coded(x_t, levels, v)
            potentials.append(v[0])
        data.close(f"{name}.membrane", torch.stack(potentials), atol=tolerance["membrane"])
    silent = {key.split(".")[0] for key in data.keys} - set(data.sidecar["cases"])
    for name in silent:
        data.equal(f"{name}.spike_sum", multi_threshold.rate_coded(data[f"{name}.input"], levels)[0])
    data.everything_was_compared()


def level_of(s, levels):
    """+i or -i for the i-th largest level of a side, 0 for none."""
    unit = torch.where(s < 0, levels.negative_unit, levels.unit)
    k = torch.log2((s.abs() / unit).clamp_min(1e-30)).round()
    return torch.where(s == 0, torch.zeros_like(s), torch.sign(s) * (levels.n - k)).long()


@over_files("threshold", "rate_input", "diff_input", "*.output")
def test_dcgs(golden):
    data = golden
    theta = data["threshold"].clamp_min(0)
    names = [key.removesuffix(".output") for key in data.tensors if key.endswith(".output")]
    assert names
    for name in names:
        kind, single = NEURONS[name]
        levels = Levels.single(theta) if single else Levels.largest(theta, data.sidecar["num_thresholds"])
        if not name.endswith(("_diff", "_diff_line")):
            for form in (multi_threshold_reference, multi_threshold):
                data.close(f"{name}.output", form.rate_coded(data["rate_input"], levels, kind=kind)[0])
            continue
        slots = data["diff_input"]
        spikes = multi_threshold_reference.differential(slots, levels, kind=kind)
        data.close(f"{name}.output", spikes)
        data.close(f"{name}.decoded", decoded(spikes))
        mi = means(slots)
        tracked, sent, _ = multi_threshold.track(mi, levels, kind=kind, with_spikes=True)
        free = ~tied(spikes, levels, kind)  # elsewhere rounding decides, in the authors' code and here
        assert free.float().mean() > 0.8
        both = [
            torch.cat([torch.zeros_like(sent[:1]), sent]),
            multi_threshold.differential(slots, levels, kind=kind)[0],
        ]
        for found in both:
            torch.testing.assert_close(found[:, free], spikes[:, free], rtol=0, atol=1e-6)
        torch.testing.assert_close(tracked[:, free], (means(spikes) - spikes[0])[:, free], rtol=0, atol=1e-5)
    data.everything_was_compared()


def means(slots):
    """Represented values of slots ``[T + 1, ...]``."""
    return codes.represented(slots[1:], slots[0])[0]


def decoded(slots):
    """Slots ``[T + 1, ...]`` in rate code."""
    return codes.decode(slots[1:], slots[0])


def tied(spikes, levels, kind):
    """Neurons that once had sent exactly a level, which a ReLU may take back or not.

    Up to the third step all sums are exact: only thirds round.
    """
    if kind != "relu":
        return torch.zeros(spikes.shape[1:], dtype=torch.bool)
    t = torch.arange(1, len(spikes), dtype=torch.float64).view(-1, *(1,) * (spikes.dim() - 1))
    mo = (spikes[1:].double() / t).cumsum(0)
    sizes = [levels.unit.double() * 2**k for k in range(levels.n)]
    near = [((t[3:] * mo[2:-1] - size).abs() < 1e-5 * size) for size in sizes]
    return torch.stack(near).any(0).any(0)


@over_files("w1", "w2", "threshold0", "hidden_spikes")
def test_differential_layers(golden):
    """Two linear layers with bias: slot by slot, and between represented values."""
    data = golden
    n, T = data.sidecar["num_thresholds"], data.sidecar["T"]
    first, second = Levels.largest(data["threshold0"], n), Levels.largest(data["threshold1"], n)
    x, w1, b1, w2, b2 = (data[k] for k in ("x", "w1", "b1", "w2", "b2"))
    slots = torch.zeros(T + 1, *x.shape)
    slots[1] = x
    data.close("encoded_input", slots)
    for fast in (False, True):
        spikes = differential(slots, first, "identity", fast)
        data.close("input_spikes", spikes)
        current = linear(spikes, w1, b1)
        data.close("hidden_current", current)
        hidden = differential(current, second, "relu", fast)
        free = ~tied(data["hidden_spikes"], second, "relu")
        close = {"rtol": 0, "atol": data.sidecar["tolerance"]["absolute"]}
        torch.testing.assert_close(hidden[:, free], data["hidden_spikes"][:, free], **close)
        if fast and not free.all():
            continue
        out = linear(hidden, w2, b2)
        data.close("hidden_spikes", hidden)
        data.close("output_current", out)
        data.close("decoded", decoded(out))
        data.close("represented", means(out))
    m, sent, _ = multi_threshold.track(x.expand(T, *x.shape), first, with_spikes=True)
    data.close("input_spikes", torch.cat([torch.zeros_like(sent[:1]), sent]))
    m, sent, _ = multi_threshold.track(linear(m, w1, b1), second, kind="relu", with_spikes=True)
    torch.testing.assert_close(sent[:, free], data["hidden_spikes"][1:, free], **close)
    represented = linear(m, w2, b2)
    if free.all():
        data.close("represented", represented)
    data.close("ann_output", linear(linear(x, w1, b1).relu(), w2, b2))
    error = (represented - data["ann_output"]).abs().mean((1, 2))
    assert error[-1] < error[0]
    data.everything_was_compared()


def differential(slots, levels, kind, fast):
    if fast:
        return multi_threshold.differential(slots, levels, kind=kind)[0]
    return multi_threshold_reference.differential(slots, levels, kind=kind)
