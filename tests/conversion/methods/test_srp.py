"""SRP against its own description, step by step, and what its masks must satisfy."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conversion import convert
from conversion.methods.integrate_fire import integrate_fire
from conversion.methods.srp import srp

MANY = settings(deadline=None, max_examples=100)


def naive(x, tau):
    """Two phases with one loop: the mask multiplies the output of a neuron that runs on."""
    v, spikes = torch.full_like(x[0], 0.5), []
    mask = torch.ones_like(v)
    for t, x_t in enumerate(x):
        if t == tau and tau > 0:
            mask = (v > 0.001).to(x.dtype)
            v = torch.full_like(v, 0.5)
        u = v + x_t
        s = (u >= 1).to(x.dtype)
        v = u - s
        spikes.append(s * mask)
    return torch.stack(spikes), mask.bool()


def drive(steps, *shape, seed=0, dtype=torch.float32, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(steps, *shape, generator=generator, dtype=torch.float64) * spread
    x += torch.randn(shape, generator=generator, dtype=torch.float64) * 0.6
    x[:, torch.rand(shape, generator=generator) < 0.1] = 0.0
    return x.to(dtype)


@MANY
@given(
    seed=st.integers(0, 2**31),
    tau=st.integers(0, 7),
    run=st.integers(1, 7),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    spread=st.sampled_from([0.2, 1.0, 3.0]),
)
def test_equals_the_loop_bit_for_bit(seed, tau, run, dtype, spread):
    x = drive(tau + run, 4, 50, seed=seed, dtype=dtype, spread=spread)
    spikes, mask = srp(x, tau)
    want, want_mask = naive(x, tau)
    assert torch.equal(mask, want_mask)
    assert torch.equal(spikes, want)
    assert spikes.dtype is dtype


@MANY
@given(seed=st.integers(0, 2**31), tau=st.integers(1, 8))
def test_phases_and_masks(seed, tau):
    x = drive(tau + 5, 400, seed=seed, dtype=torch.float64)
    spikes, mask = srp(x, tau)
    rehearsed, v = integrate_fire(x[:tau])
    again, _ = integrate_fire(x[tau:])
    assert torch.equal(spikes[:tau], rehearsed)
    assert torch.equal(mask, v > 0.001)
    assert torch.equal(spikes[tau:], again * mask)
    n, level = rehearsed.sum(0), x[:tau].sum(0) + 0.5
    unwanted = (level < 1 - 1e-9) & (n > 0)  # QCFS with L = tau is silent there
    assert not spikes[tau:, unwanted].any()


def test_a_membrane_within_the_margin_is_silenced_as_well():
    residual = torch.tensor([-0.25, 0.0, 0.0005, 0.002, 0.5])
    spikes, mask = srp(torch.stack([residual - 0.5, torch.ones(5)]), tau=1)
    assert mask.tolist() == [False, False, False, True, True]
    assert spikes[1].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]


def test_silenced_neurons_get_no_gradient_and_the_mask_gives_none():
    x = drive(8, 200, spread=0.5).requires_grad_()
    spikes, mask = srp(x, 4)
    spikes[4:].sum().backward()
    assert 0 < mask.float().mean() < 1
    assert not x.grad[:4].any()
    assert not x.grad[4:, ~mask].any()
    plain = x.detach()[4:].clone().requires_grad_()
    integrate_fire(plain)[0].sum().backward()
    assert torch.equal(x.grad[4:, mask], plain.grad[:, mask])


def test_samples_do_not_see_each_other():
    x = drive(9, 4, 30)
    whole, mask = srp(x, 4)
    for i in range(4):
        alone, own = srp(x[:, i : i + 1], 4)
        assert torch.equal(whole[:, i : i + 1], alone)
        assert torch.equal(mask[i : i + 1], own)


@pytest.mark.parametrize("tau", [-1, 5, 6])
def test_a_rehearsal_that_leaves_nothing_is_refused(tau):
    with pytest.raises(ValueError, match=f"tau must be between 0 and 4 for 5 time steps, got {tau}"):
        srp(torch.zeros(5, 2), tau)


def test_many_steps_are_warned_of(relu_net, images):
    """Where thresholds are calibrated, plain QCFS is closer in the long run: measured, not only said."""
    x, far = images(2, seed=5), 64
    with torch.no_grad():
        want = relu_net(x)
        with pytest.warns(UserWarning, match=r"SRP at T = 64: .*method='qcfs'"):
            masked = convert(relu_net, "srp", far, images(6), progress=False)
        plain = convert(relu_net, "qcfs", far, images(6), progress=False)
        assert (plain(x) - want).norm() < (masked(x) - want).norm()
    assert "stays silent at every step" in str(masked.report)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "SRP at")
        convert(relu_net, "srp", 8, images(6), progress=False)
        convert(relu_net, "srp", 64, images(6), tau=0, progress=False)
