"""Histograms against numpy on everything they have seen."""

import numpy as np
import pytest
import torch

from conversion.calibration.histogram import BINS, Histogram


def draw(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).relu() * 3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99, 0.999])
def test_quantiles(seed, share):
    values = draw(seed, 40, 500)
    histogram = Histogram()
    for part in values.split(7):
        histogram.add(part)
    expected = np.quantile(values.numpy(), share, method="inverted_cdf")
    width = histogram.range / BINS
    assert float(histogram.quantile(share)) == pytest.approx(expected, abs=1.01 * width)


def test_the_largest_is_exact():
    values = draw(0, 8, 100)
    histogram = Histogram()
    for part in values:
        histogram.add(part)
    assert histogram.quantile(1.0) == values.max()
    assert histogram.quantile(0.9999999) <= values.max()


def test_range_doubles_without_losing_a_count():
    histogram = Histogram()
    parts = [draw(k, 50) * 10.0**k for k in range(-3, 4)]
    for part in parts:
        before = histogram.range
        histogram.add(part)
        assert histogram.range >= before
    values = torch.cat(parts)
    assert histogram.counts.sum() == values.numel()
    assert histogram.range > values.max()
    assert histogram.range <= 2.0 * values.max() + parts[0].max()
    expected = np.quantile(values.numpy(), 0.9, method="inverted_cdf")
    assert float(histogram.quantile(0.9)) == pytest.approx(expected, abs=1.01 * histogram.range / BINS)


def test_order_of_the_batches_does_not_matter_for_the_largest():
    parts = list(draw(1, 6, 50))
    one, other = Histogram(), Histogram()
    for part in parts:
        one.add(part)
    for part in reversed(parts):
        other.add(part)
    assert torch.equal(one.quantile(1.0), other.quantile(1.0))
    assert one.counts.sum() == other.counts.sum()


def test_zeros_alone_and_zeros_first():
    histogram = Histogram()
    histogram.add(torch.zeros(3, 4))
    assert histogram.quantile(0.999) == 0
    assert histogram.best_threshold(4) == 0
    histogram.add(torch.full((3, 4), 2.0))
    assert histogram.counts.sum() == 24
    assert histogram.quantile(0.25) <= histogram.range / BINS * 1.01
    assert float(histogram.quantile(0.9)) == pytest.approx(2.0, rel=1e-3)


def test_negative_values_count_as_zero():
    histogram = Histogram()
    histogram.add(torch.tensor([-5.0, -1.0, -0.1, 1.0]))
    assert float(histogram.quantile(0.75)) <= histogram.range / BINS * 1.01
    assert histogram.quantile(1.0) == 1.0


@pytest.mark.parametrize("axis", [1, -1])
def test_channels(axis):
    values = draw(2, 30, 5, 6, 5) * torch.linspace(0.5, 4.0, 5).view(
        [5 if a == axis % 4 else 1 for a in range(4)]
    )
    histogram = Histogram(5)
    for part in values.split(4):
        histogram.add(part, axis)
    rows = values.movedim(axis, 0).flatten(1)
    assert torch.equal(histogram.quantile(1.0), rows.amax(1))
    for share in (0.6, 0.9, 0.99):
        expected = np.quantile(rows.numpy(), share, axis=1, method="inverted_cdf")
        np.testing.assert_allclose(
            histogram.quantile(share), expected, rtol=0, atol=1.01 * histogram.range / BINS
        )


@pytest.mark.parametrize("levels", [1, 2, 4, 8])
def test_best_threshold_has_the_least_squared_error(levels):
    values = draw(3, 4000).double()
    histogram = Histogram()
    histogram.add(values)

    def error(theta):
        coded = (values * levels / theta + 0.5).floor().clamp(0, levels) * theta / levels
        return float((coded - values).square().mean())

    found = float(histogram.best_threshold(levels))
    least = min(error(theta) for theta in np.linspace(0.02, 1.0, 200) * float(values.max()))
    assert error(found) <= 1.02 * least
    assert error(found) <= error(float(values.max()))
