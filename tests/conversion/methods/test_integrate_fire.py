"""The neuron of QCFS, SRP and COS against one step after the other, and what its counts must satisfy."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conversion.methods.integrate_fire import integrate_fire
from spiking.surrogate import ATan

MANY = settings(deadline=None, max_examples=100)


def naive(x, v0=0.5):
    """Spikes, charges and membranes at every step."""
    v, spikes, charges, membranes = torch.full_like(x[0], 1.0) * v0, [], [], []
    for x_t in x:
        u = v + x_t
        s = (u >= 1).to(x.dtype)
        v = u - s
        for trace, value in ((spikes, s), (charges, u), (membranes, v)):
            trace.append(value)
    return torch.stack(spikes), torch.stack(charges), torch.stack(membranes)


def drive(steps, *shape, seed=0, dtype=torch.float32, spread=1.0):
    """Uneven currents, some excited, some inhibited, some silent."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(steps, *shape, generator=generator, dtype=torch.float64) * spread
    x += torch.randn(shape, generator=generator, dtype=torch.float64) * 0.6
    x[:, torch.rand(shape, generator=generator) < 0.1] = 0.0
    return x.to(dtype)


@MANY
@given(
    seed=st.integers(0, 2**31),
    steps=st.integers(1, 9),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    spread=st.sampled_from([0.2, 1.0, 3.0]),
)
def test_equals_the_loop_bit_for_bit(seed, steps, dtype, spread):
    x = drive(steps, 3, 17, seed=seed, dtype=dtype, spread=spread)
    v0 = drive(1, 3, 17, seed=seed + 1, dtype=dtype)[0]
    for start in (0.5, v0, v0[:, :1]):
        spikes, v = integrate_fire(x, start)
        want, _, membranes = naive(x, start)
        assert torch.equal(spikes, want)
        assert torch.equal(v, membranes[-1])


def test_fires_on_the_threshold_itself():
    spikes, v = integrate_fire(torch.tensor([[0.5, 0.5 - 2**-24, 0.25], [0.0, 0.0, 0.25]]))
    assert spikes.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    assert v[0] == 0
    assert v[2] == 0


@MANY
@given(seed=st.integers(0, 2**31), steps=st.integers(1, 12))
def test_bookkeeping_and_the_sign_rules(seed, steps):
    """v(T) = 1/2 + S - n; spikes are superfluous where v(T) < 0, missing where v(T) >= 1."""
    x = drive(steps, 500, seed=seed, dtype=torch.float64)
    spikes, v = integrate_fire(x)
    total, n = x.sum(0), spikes.sum(0)
    torch.testing.assert_close(v, 0.5 + total - n, rtol=0, atol=1e-12)
    level = (total + 0.5).floor()
    sure = (total + 0.5 - (total + 0.5).round()).abs() > 1e-9
    assert torch.equal((n - level)[sure], -v.floor()[sure])
    wanted = level.clamp(0, steps)
    assert torch.equal((n > wanted)[sure], ((v < 0) & (n > 0))[sure])
    assert torch.equal((n < wanted)[sure], ((v >= 1) & (n < steps))[sure])


@MANY
@given(
    sixteenths=st.lists(st.integers(-40, 60), min_size=1, max_size=20),
    steps=st.integers(1, 9),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_constant_currents_lose_nothing(sixteenths, steps, dtype):
    """Multiples of 1/16 are exact, ties included: the first site is lossless for every L = T."""
    x = torch.tensor(sixteenths, dtype=dtype) / 16
    spikes, _ = integrate_fire(x.expand(steps, -1))
    assert torch.equal(spikes.sum(0), (steps * x + 0.5).floor().clamp(0, steps))


def test_a_still_image_gives_what_its_copies_give():
    still = drive(1, 2, 3, 5, 7)[0].to(memory_format=torch.channels_last)
    spikes, v = integrate_fire(still.expand(6, -1, -1, -1, -1))
    want, want_v = integrate_fire(still.repeat(6, 1, 1, 1, 1))
    assert torch.equal(spikes, want)
    assert torch.equal(v, want_v)


def test_samples_do_not_see_each_other_and_nothing_is_kept():
    x = drive(5, 4, 30)
    whole = integrate_fire(x)[0]
    assert torch.equal(whole, torch.cat([integrate_fire(x[:, i : i + 1])[0] for i in range(4)], dim=1))
    assert torch.equal(whole, integrate_fire(x)[0])


def test_half_precision_keeps_the_membrane_in_float32():
    x = drive(6, 2, 40, dtype=torch.bfloat16)
    spikes, v = integrate_fire(x)
    want, _, membranes = naive(x.float())
    assert spikes.dtype is torch.bfloat16
    assert torch.equal(spikes.float(), want)
    assert torch.equal(v, membranes[-1])


@MANY
@given(seed=st.integers(0, 2**31), steps=st.integers(1, 8))
def test_gradient_of_the_count_is_straight_through(seed, steps):
    """Every current weighs 1 where the last charge lies within half a threshold of firing."""
    x = drive(steps, 300, seed=seed, spread=0.4).requires_grad_()
    last = naive(x.detach())[1][-1]
    integrate_fire(x)[0].sum().backward()
    near = (last - 1).abs() < 0.499
    assert near.any()
    torch.testing.assert_close(x.grad[:, near], torch.ones(steps, int(near.sum())), rtol=0, atol=1e-6)


def test_gradients_agree_with_the_reference_and_reach_the_start():
    found = []
    for backend in ("auto", "reference"):
        x, v0 = drive(5, 3, 20).requires_grad_(), drive(1, 3, 20, seed=1)[0].requires_grad_()
        spikes, v = integrate_fire(x, v0, surrogate=ATan(), backend=backend)
        weights = drive(5, 3, 20, seed=2)
        found.append(torch.autograd.grad((spikes * weights).sum() + v.square().sum(), (x, v0)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-6)


def test_currents_without_steps_or_fractions_are_refused():
    with pytest.raises(ValueError, match="at least one time step"):
        integrate_fire(torch.zeros(0, 3))
    with pytest.raises(TypeError, match=r"use x\.float"):
        integrate_fire(torch.zeros(2, 3, dtype=torch.long))
