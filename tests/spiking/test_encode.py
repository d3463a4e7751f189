"""Encoders: views, rates, times of the first spike, refused values."""

from __future__ import annotations

import math

import pytest
import torch

from spiking.encode import direct, latency, poisson


def test_direct_is_a_view():
    x = torch.rand(2, 3, 4, 4)
    y = direct(x, 5)
    assert y.shape == (5, 2, 3, 4, 4)
    assert y.stride(0) == 0
    assert y.data_ptr() == x.data_ptr()
    assert torch.equal(y[4], x)


def test_poisson_fires_at_the_rate_of_the_intensity():
    x = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]).view(1, 5).expand(400, 5)
    y = poisson(x, 50, torch.Generator().manual_seed(0))
    assert set(y.unique().tolist()) == {0.0, 1.0}
    rate = y.mean((0, 1))
    # 20,000 draws: five standard deviations are at most 5 * sqrt(0.25 / 20000) = 0.018
    torch.testing.assert_close(rate, x[0], atol=0.018, rtol=0)
    assert rate[0] == 0
    assert rate[-1] == 1
    steps = y[:, :, 2].mean(1)
    assert steps.std() < 0.06  # independent of time: sqrt(0.25 / 400) = 0.025


def test_poisson_repeats_with_its_generator():
    x = torch.rand(3, 4)
    once, again = (poisson(x, 6, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, poisson(x, 6, torch.Generator().manual_seed(8)))
    before = torch.get_rng_state()
    poisson(x, 6, torch.Generator().manual_seed(7))
    assert torch.equal(before, torch.get_rng_state())


def test_poisson_keeps_half_precision_rates():
    y = poisson(torch.full((1, 20000), 1.0, dtype=torch.bfloat16), 5)
    assert y.dtype is torch.bfloat16
    assert bool((y == 1).all())  # bfloat16 draws would reach 1.0 and miss


def test_latency_fires_once_and_brighter_is_earlier():
    x = torch.linspace(0, 1, 101).view(1, -1)
    y = latency(x, 8)[:, 0]
    assert set(y.unique().tolist()) == {0.0, 1.0}
    count = y.sum(0)
    assert count[0] == 0
    assert bool((count[1:] == 1).all())
    when = y.argmax(0)[1:]
    assert bool((when[1:] <= when[:-1]).all())
    assert when[-1] == 0
    assert when[0] == 7
    assert when.unique().tolist() == list(range(8))
    assert latency(torch.tensor([[1e-30]]), 3)[2].item() == 1
    assert latency(torch.tensor([[0.2]]), 1).item() == 1


def test_latency_keeps_dtype_and_shape():
    y = latency(torch.rand(2, 3, 4, 4, dtype=torch.float16), 3)
    assert (y.shape, y.dtype) == ((3, 2, 3, 4, 4), torch.float16)


@pytest.mark.parametrize("encode", [poisson, latency])
@pytest.mark.parametrize("bad", [-0.1, 1.5, math.nan, math.inf])
def test_values_outside_the_unit_interval_are_refused(encode, bad: float):
    x = torch.rand(2, 3)
    x[1, 2] = bad
    with pytest.raises(ValueError, match=rf"{encode.__name__} coding needs intensities in \[0, 1\]"):
        encode(x, 4)


@pytest.mark.parametrize("encode", [direct, poisson, latency])
def test_wrong_arguments_are_refused(encode):
    with pytest.raises(ValueError, match="time_steps must be an integer of at least 1, got 0"):
        encode(torch.rand(2, 3), 0)
    with pytest.raises(TypeError, match=r"expected a floating-point input, got torch\.uint8"):
        encode(torch.zeros(2, 3, dtype=torch.uint8), 4)
    assert encode(torch.rand(0, 3), 4).shape == (4, 0, 3)
