"""Statistics of activations, and the threshold iteration of DCGS."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conversion import thresholds


def activations(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


# ---------------------------------------------------------------- statistics


@pytest.mark.parametrize(
    ("level", "shape"),
    [("layer", (1, 1, 1, 1)), ("channel", (1, 3, 1, 1)), ("feature", (1, 1, 1, 7)), ("neuron", (1, 3, 5, 7))],
)
def test_a_statistic_is_shared_by_its_level(level, shape):
    x = activations(4, 3, 5, 7)
    q, top = thresholds.quantile(x, 0.9, level), thresholds.maximum(x, level)
    assert q.shape == top.shape == shape
    axis = {"channel": 1, "feature": 3}.get(level)
    if axis is not None:
        part = x.select(axis, 2).flatten()
        torch.testing.assert_close(q.flatten()[2], torch.quantile(part, 0.9))
        assert top.flatten()[2] == part.max()
    if level == "neuron":
        torch.testing.assert_close(q[0, 1, 2, 3], torch.quantile(x[:, 1, 2, 3], 0.9))
    if level == "layer":
        torch.testing.assert_close(q.item(), torch.quantile(x.flatten(), 0.9).item())
    broadcast = x / q
    assert broadcast.shape == x.shape


def test_signs_count_unless_magnitudes_are_asked_for():
    x = -activations(4, 6).abs()
    assert thresholds.quantile(x, 0.999) < 0, "which silences an identity neuron"
    torch.testing.assert_close(
        thresholds.quantile(x, 0.9, magnitude=True), torch.quantile(x.abs().flatten(), 0.9).view(1, 1)
    )
    assert thresholds.maximum(x, magnitude=True) == x.abs().max()


def test_base_quantiles_count_without_interpolation():
    x = torch.arange(1.0, 101.0)[torch.randperm(100, generator=torch.Generator().manual_seed(0))].view(4, 25)
    assert int((1 - 0.9) * 100) == 9, "binary floating point"
    assert thresholds.base_quantiles(x, 0.9).tolist() == [90.0, -9.0]
    assert thresholds.base_quantiles(x - 50, 0.75).tolist() == [25.0, 25.0]
    assert thresholds.base_quantiles(torch.tensor([[3.0, 1.0]]), 0.99).tolist() == [1.0, -1.0], "rank 0 is 1"


def test_averages_over_batches():
    equal, weighted = thresholds.Average(), thresholds.Average()
    assert equal.value is None
    for value, size in ((1.0, 8), (4.0, 2)):
        equal.add(torch.tensor(value))
        weighted.add(torch.tensor(value), size)
    assert equal.value.item() == 2.5
    assert weighted.value.item() == pytest.approx(1.6)
    assert weighted.weight == 10


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    level=st.sampled_from(["layer", "channel", "neuron"]),
)
def test_moments_over_batches_are_those_of_all_images(sizes, level):
    x = activations(sum(sizes), 3, 4, dtype=torch.float64) + 2.0
    moments, parts = thresholds.Moments(level), [thresholds.Moments(level) for _ in range(2)]
    for i, batch in enumerate(x.split(sizes)):
        moments.add(batch)
        parts[i % 2].add(batch)
    axes = thresholds.reduced_axes(level, 3)
    torch.testing.assert_close(moments.mean, x.mean(axes, keepdim=True))
    torch.testing.assert_close(moments.var, x.var(axes, correction=0, keepdim=True))
    parts[0].merge(parts[1])  # as two processes would
    torch.testing.assert_close(parts[0].mean, moments.mean)
    torch.testing.assert_close(parts[0].var, moments.var)
    assert parts[0].images == moments.images == sum(sizes)


def test_half_precision_and_gradients_stay_outside():
    x = activations(4, 3, 8, dtype=torch.bfloat16).requires_grad_()
    for value in (
        thresholds.quantile(x, 0.99, "channel"),
        thresholds.maximum(x),
        thresholds.base_quantiles(x, 0.9),
    ):
        assert value.dtype is torch.float32
        assert not value.requires_grad


def test_errors_say_what_is_wrong():
    x = activations(4, 3)
    with pytest.raises(ValueError, match="unknown level 'token'; known: layer, channel, feature, neuron"):
        thresholds.quantile(x, 0.9, "token")
    with pytest.raises(ValueError, match="an axis behind the batch"):
        thresholds.maximum(x[:, 0], "channel")
    with pytest.raises(ValueError, match=r"a share must lie above 0 and at most at 1, got 99\.9"):
        thresholds.quantile(x, 99.9)
    with pytest.raises(ValueError, match="no activations"):
        thresholds.base_quantiles(x[:0], 0.9)


# ---------------------------------------------------------------- iteration


def squared_error(theta, mean, std, levels):
    """``E[(f(x) - relu(x))^2]`` on a fine grid."""
    z = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    weight = torch.exp(-(z**2) / 2) / torch.exp(-(z**2) / 2).sum()
    x = mean + std * z
    f = theta / levels * (levels * x / theta + 0.5).floor().clamp(0, levels)
    return float(((f - x.clamp_min(0)) ** 2 * weight).sum())


def test_levels_of_a_neuron():
    assert thresholds.quantisation_levels(16) == 16
    assert thresholds.quantisation_levels(16, 4) == 256


NORMAL = {"mean": st.floats(-2.0, 2.0), "std": st.floats(0.05, 5.0), "levels": st.sampled_from([4, 8, 64])}


def column(*values):
    return torch.tensor(values, dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(0.01, 100.0), theta=st.floats(0.05, 20.0), **NORMAL)
def test_the_factor_does_not_depend_on_the_unit(scale, theta, mean, std, levels):
    one, other = (
        thresholds.scale_factor(column(a * theta), column(a * mean * std), column((a * std) ** 2), levels)
        for a in (1.0, scale)
    )
    torch.testing.assert_close(one, other, rtol=1e-9, atol=0, equal_nan=True)


@settings(max_examples=20, deadline=None)
@given(**NORMAL)
def test_updates_move_towards_the_best_threshold_and_the_error_falls(mean, std, levels):
    mu, var = column(mean * std), column(std**2)
    best = thresholds.best_threshold(mu, var, levels)
    for away, sign in ((0.3, 1.0), (3.0, -1.0)):
        k = thresholds.scale_factor(best * away, mu, var, levels)
        assert sign * (k - 1.0) > 0
        theta = best * away
        before = squared_error(theta.item(), mu.item(), std, levels)
        for _ in range(4):
            theta = theta * thresholds.scale_factor(theta, mu, var, levels)
            after = squared_error(theta.item(), mu.item(), std, levels)
            assert after <= before * (1 + 1e-5) + 1e-12 * std**2  # of the grid
            before = after
    least = squared_error(best.item(), mu.item(), std, levels)
    for nearby in (0.9, 1.1):
        assert least <= squared_error(best.item() * nearby, mu.item(), std, levels)


@pytest.mark.parametrize("start", [0.2, 1.0, 20.0])
def test_the_fixed_point_does_not_depend_on_the_start(start):
    mean, var = column(0.0, -1.0, 1.5), column(1.0, 0.5, 2.0)
    found = thresholds.iterated_threshold(mean, var, 8, updates=1500, start=start)
    torch.testing.assert_close(found, thresholds.best_threshold(mean, var, 8), rtol=1e-6, atol=0)


def test_a_hundred_updates_are_not_enough():
    """Thresholds for a standard normal distribution, after 100 updates and at the fixed point."""
    zero, one = torch.zeros(1), torch.ones(1)
    for levels, hundred, fixed in ((8, 2.551, 2.551), (64, 3.191, 3.615), (512, 3.218, 4.494)):
        assert thresholds.iterated_threshold(zero, one, levels).item() == pytest.approx(hundred, rel=1e-3)
        assert thresholds.best_threshold(zero, one, levels).item() == pytest.approx(fixed, rel=1e-3)
    ratio = squared_error(3.218, 0.0, 1.0, 512) / squared_error(4.494, 0.0, 1.0, 512)
    assert ratio > 12
    small = torch.tensor([0.05**2])
    assert thresholds.iterated_threshold(zero, small, 512).item() == pytest.approx(0.99, abs=0.01)
    assert thresholds.best_threshold(zero, small, 512).item() == pytest.approx(0.05 * 4.494, rel=1e-3)


def test_channels_that_never_fire():
    mean, var = torch.tensor([-3.0, -8.0, -12.5, 0.5, -0.5]), torch.tensor([0.25, 1.0, 1.0, 0.0, 0.0])
    assert thresholds.iterated_threshold(mean, var, 64)[1:3].tolist() == [1.0, 1.0]
    best = thresholds.best_threshold(mean, var, 64)
    assert torch.isfinite(best).all()
    assert (best > 0).all()
    assert best[2:].tolist() == [1.0, 0.5, 1.0]


def test_shapes_stay_broadcastable():
    moments = thresholds.Moments("channel")
    moments.add(activations(4, 3, 5, 7))
    for find in (thresholds.iterated_threshold, thresholds.best_threshold):
        assert find(moments.mean, moments.var, 16).shape == (1, 3, 1, 1)
    assert math.isclose(float(moments.var.mean()), 1.0, abs_tol=0.3)
