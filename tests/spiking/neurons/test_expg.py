"""ExpG-IF: the code, the firing, the quantised form and its gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.expg import nearest_entry, spikes_of

import spiking
from spiking.neurons.expg import ExpGCode, ExpGIF, ExpGQuant, nearest_level
from spiking.qcfs import qcfs

# (G, n): L, mean spikes if all levels were equally likely
TABLE = {
    (1, 4): (4, 2.0),
    (2, 2): (6, 1.857),
    (4, 1): (15, 2.0),
    (3, 2): (14, 2.6),
    (2, 3): (9, 2.7),
    (4, 2): (30, 3.258),
    (2, 4): (12, 3.538),
}
codes = st.builds(
    ExpGCode.grouped,
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from(["descending", "interleaved"]),
    st.one_of(st.none(), st.integers(1, 4)),
)


def decoded(train, code):
    return sum(o * w for o, w in zip(train, code.weights, strict=True))


def pair(code, step=0.7):
    quantised, firing = ExpGQuant(code).eval(), ExpGIF(code).eval()
    for form in (quantised, firing):
        form.double().step_size.data.fill_(step)
    return quantised, firing


# -- the code --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("groups", "steps"), TABLE)
def test_levels_and_spikes_of_the_presets(groups, steps):
    code = ExpGCode.grouped(groups, steps)
    levels, mean = TABLE[groups, steps]
    assert code.levels == levels == steps * (2**groups - 1)
    counts = [sum(code.spike_train(n)) for n in range(levels + 1)]
    assert sum(counts) / len(counts) == pytest.approx(mean, abs=6e-4)
    assert max(counts) == code.time_steps == groups * steps


@given(codes)
@settings(max_examples=60, deadline=None)
def test_every_level_can_be_written(code):
    whole = ExpGCode(code.weights)
    for level in range(-3, whole.levels + 4):
        clipped = min(max(level, 0), whole.levels)
        assert decoded(whole.spike_train(level), whole) == clipped
    for level in code.codebook():
        assert decoded(code.spike_train(level), code) == level
        assert code.most_spikes is None or sum(code.spike_train(level)) <= code.most_spikes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": (4, 1)}, "leave gaps: 4 is more than 1 plus all smaller ones, 2"),
        ({"weights": (2, 2)}, "leave gaps: 2 is more than 1 plus all smaller ones, 1"),
        ({"weights": ()}, "whole numbers of at least 1"),
        ({"weights": (1.5, 1)}, "whole numbers of at least 1"),
        ({"weights": (1,), "most_spikes": 0}, "most_spikes must be at least 1"),
    ],
)
def test_codes_with_gaps_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ExpGCode(**arguments)


def test_other_complete_weights():
    mixed = ExpGCode((3, 3, 1, 1))  # mixed radix, base 3
    assert mixed.levels == 8
    assert [decoded(mixed.spike_train(n), mixed) for n in range(9)] == list(range(9))
    with pytest.raises(ValueError, match="order must be"):
        ExpGCode.grouped(2, 2, "rising")
    with pytest.raises(ValueError, match="groups and steps"):
        ExpGCode.grouped(0, 2)


# -- firing ----------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 3), st.floats(0.05, 3.0), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_firing_equals_the_potential_s_dynamics(groups, steps, step, seed):
    code = ExpGCode.grouped(groups, steps)
    _, firing = pair(code, step)
    generator = torch.Generator().manual_seed(seed)
    x = 1.5 * code.levels * step * (torch.rand(9, generator=generator, dtype=torch.float64) - 0.2)
    spikes = firing(x)
    assert spikes.shape == (code.time_steps, 9)
    for i, potential in enumerate(x.tolist()):
        assert spikes[:, i].tolist() == spikes_of(potential, step, code.weights)


@given(codes, st.floats(0.05, 3.0), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_both_forms_say_the_same(code, step, seed):
    quantised, firing = pair(code, step)
    generator = torch.Generator().manual_seed(seed)
    x = code.levels * step * (torch.rand(2, 5, generator=generator, dtype=torch.float64) * 1.6 - 0.3)
    weight = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    n, spikes = quantised(x), firing(x)
    assert set(spikes.unique().tolist()) <= {0.0, 1.0}
    assert code.most_spikes is None or spikes.sum(0).max() <= code.most_spikes
    assert torch.equal((spikes * torch.tensor(code.weights).view(-1, 1, 1)).sum(0), n)
    layer = lambda y: y @ weight  # noqa: E731
    torch.testing.assert_close(firing.weigh(layer, spikes), quantised.weigh(layer, n), rtol=0, atol=1e-12)
    torch.testing.assert_close(quantised.weigh(layer, n), (step * n) @ weight)


@given(st.lists(st.floats(-3, 40), min_size=1, max_size=8), codes)
@settings(max_examples=60, deadline=None)
def test_nearest_entry_of_a_sparse_codebook(ratios, code):
    book = code.codebook()
    if len(book) == book[-1] + 1:
        return
    got = nearest_level(torch.tensor(ratios, dtype=torch.float64), book)
    assert got.tolist() == [nearest_entry(r, book) for r in ratios]


def test_limits():
    x = torch.randn(50, dtype=torch.float64) * 3
    step = torch.tensor(0.6, dtype=torch.float64)
    rate, _ = pair(ExpGCode.grouped(1, 5), 0.6)
    torch.testing.assert_close(rate(x) * step, qcfs(x, step * 5, 5))
    _, binary = pair(ExpGCode.grouped(4, 1), 1.0)
    levels = torch.arange(16, dtype=torch.float64)
    want = torch.stack([(levels.long() >> bit) & 1 for bit in (3, 2, 1, 0)]).double()
    assert torch.equal(binary(levels), want)


def test_ties_go_up_and_negative_stays_silent():
    quantised, firing = pair(ExpGCode.grouped(2, 2), 1.0)
    x = torch.tensor([-5.0, -0.5, 0.499, 0.5, 1.5, 5.5, 99.0], dtype=torch.float64)
    assert quantised(x).tolist() == [0, 0, 0, 1, 2, 6, 6]
    assert firing(x).sum(0).tolist() == [0, 0, 0, 1, 1, 4, 4]


# -- training --------------------------------------------------------------------------------------


def test_gradients():
    code = ExpGCode.grouped(2, 2)
    quantised, _ = pair(code, 0.5)
    quantised.train()
    x = torch.tensor([-1.0, -0.25, 0.1, 1.3, 3.24, 3.26, 9.0], dtype=torch.float64, requires_grad=True)
    grad = torch.arange(1.0, 8.0, dtype=torch.float64)
    a = quantised.weigh(lambda n: n, quantised(x))
    (a * grad).sum().backward()
    ratio = x.detach() / 0.5
    inside = (ratio + 0.5 >= 0) & (ratio + 0.5 < code.levels + 1)
    assert inside.tolist() == [False, True, True, True, True, False, False]
    torch.testing.assert_close(x.grad, grad * inside)
    n = quantised(x.detach())
    slope = torch.where(inside, n - ratio, torch.where(ratio > 0, code.levels, 0.0))
    want = (grad * slope).sum() / (x.numel() * code.levels) ** 0.5
    torch.testing.assert_close(quantised.step_size.grad, want)


def test_the_first_batch_sets_the_step():
    quantised = ExpGQuant(ExpGCode.grouped(2, 2))
    assert quantised.step_size == 0
    quantised.eval()
    assert torch.equal(quantised(torch.tensor([0.6, 3.2])), torch.tensor([1.0, 3.0]))  # 1 until it is set
    assert quantised.step_size == 0
    quantised.train()
    x = torch.tensor([-1.0, 3.0])
    quantised(x)
    assert quantised.step_size.item() == pytest.approx(2 * 2.0 / 6**0.5)
    before = quantised.step_size.item()
    quantised(10 * x)
    assert quantised.step_size.item() == before


def kept_by_training(code):
    """Numbers that a forward pass saves for the backward one."""
    quantised, kept = ExpGQuant(code), []
    weight = torch.randn(32, 32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        n = quantised(torch.randn(8, 32, requires_grad=True))
        quantised.weigh(lambda y: y @ weight, n).sum().backward()
    return sum(kept)


def test_what_training_keeps_does_not_depend_on_the_code():
    few, *others = (kept_by_training(ExpGCode.grouped(*gn)) for gn in ((1, 1), (1, 4), (4, 1), (8, 2)))
    assert others == [few] * 3
    assert few < 2000  # the input, the levels, the product, the weight


def test_cannot_stream_and_is_watched():
    neuron = ExpGIF(ExpGCode.grouped(2, 2)).eval()
    with pytest.raises(RuntimeError, match="not causal"), spiking.streaming(neuron):
        pass
    with spiking.FiringRateMonitor(neuron) as monitor:
        neuron(torch.tensor([[0.2, 1.2, 6.0]]))
    assert monitor.rates_per_step()[""].tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3, 1 / 3])
    assert neuron.time_steps == 4
