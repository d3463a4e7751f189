"""Parallel conversion against the rule of the authors' code, its calibration against the bare formulas."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conversion.methods.parallel import calibrate_step, clipped_relu, da_qcfs, parallel, parallel_spikes
from spiking.qcfs import qcfs

MANY = settings(deadline=None, max_examples=100)
STEPS = st.sampled_from([1, 2, 3, 4, 6, 8, 16])


def naive(mean, time_steps, theta, phi_in):
    """The authors' rule: step t compares its own current with the threshold."""
    spikes = []
    for t in range(1, time_steps + 1):
        current = (time_steps / t) * mean + (0.5 * theta + time_steps * phi_in) / t
        spikes.append(((current >= theta) & (theta > 0)).to(mean.dtype))
    return torch.stack(spikes)


def naive_qcfs(x, theta, levels):
    return theta * ((x * levels / theta + 0.5).floor() / levels).clamp(0, 1)


def site(seed, dtype=torch.float64, dead=True):
    """Currents ``[B, C, H, W]``, thresholds and corrections; channel 1 never fires if ``dead``."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    theta = torch.rand(3, 1, 1, generator=generator, dtype=torch.float64) + 0.5
    if dead:
        theta[1] = -0.3 * (seed % 3)
    phi = torch.randn(2, 3, 1, 1, generator=generator, dtype=torch.float64) * 0.1
    return x.to(dtype), theta.to(dtype), phi[0].to(dtype), phi[1].to(dtype)


@MANY
@given(seed=st.integers(0, 2**31), steps=STEPS, dtype=st.sampled_from([torch.float32, torch.float64]))
def test_equals_the_rule_of_the_code_away_from_ties(seed, steps, dtype):
    mean, theta, phi_in, _ = site(seed, dtype)
    level = steps * (mean + phi_in) / theta
    sure = (level + 0.5 - (level + 0.5).round()).abs() > (1e-4 if dtype is torch.float32 else 1e-9)
    spikes, want = parallel_spikes(mean, steps, theta, phi_in), naive(mean, steps, theta, phi_in)
    assert spikes.shape == (steps, *mean.shape)
    assert spikes.dtype is dtype
    assert torch.equal(spikes[:, sure], want[:, sure])
    assert torch.equal(spikes, spikes.sort(0, descending=True)[0])  # all spikes come first


@MANY
@given(eighths=st.lists(st.integers(-20, 40), min_size=1, max_size=20), steps=st.sampled_from([1, 2, 4, 8]))
def test_ties_go_up_as_in_qcfs(eighths, steps):
    mean = torch.tensor(eighths) / 16.0 * 1.5
    counts = parallel_spikes(mean, steps, 1.5).sum(0)
    assert torch.equal(counts, (mean / 1.5 * steps + 0.5).floor().clamp(0, steps))


@MANY
@given(seed=st.integers(0, 2**31), steps=STEPS)
def test_the_mean_over_time_is_the_calibrated_activation(seed, steps):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(steps, 2, 3, 4, 5, generator=generator, dtype=torch.float64)
    _, theta, phi_in, phi_out = site(seed)
    for corrections in ((None, None), (phi_in, None), (phi_in, phi_out)):
        rate = parallel(x, theta, *corrections).mean(0)
        torch.testing.assert_close(rate, da_qcfs(x.mean(0), theta, steps, *corrections), rtol=0, atol=1e-12)
    scalar = parallel(x, 1.3).mean(0)
    torch.testing.assert_close(scalar, naive_qcfs(x.mean(0), 1.3, steps), rtol=0, atol=1e-12)


def test_the_order_of_the_currents_does_not_matter():
    x = torch.arange(6.0).reshape(6, 1).expand(6, 40) / 16 - torch.arange(40.0) / 32
    shuffled = x[torch.tensor([3, 0, 5, 1, 4, 2])]
    assert torch.equal(parallel(x), parallel(shuffled))
    assert 0 < parallel(x).mean() < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_corrections_channels_are_layers(dtype):
    x, _, _, _ = site(0, dtype)
    zeros = torch.zeros(3, 1, 1, dtype=dtype)
    one = parallel_spikes(x, 5, 0.75)
    assert torch.equal(one, parallel_spikes(x, 5, torch.full((3, 1, 1), 0.75, dtype=dtype), zeros))
    assert torch.equal(one, parallel_spikes(x, 5, torch.tensor([0.75], dtype=dtype)))
    steps = x.expand(5, *x.shape)
    assert torch.equal(parallel(steps, 0.75), parallel(steps, 0.75, zeros, zeros))


@pytest.mark.parametrize("theta", [0.0, -0.5])
def test_dead_channels_stay_silent(theta):
    """Without a guard 0 / 0 is no number, and a negative threshold turns inhibition into spikes."""
    x = torch.tensor([-2.0, 0.0, 2.0]).expand(4, 1, 3)
    thresholds = torch.tensor([theta, theta, 1.0])
    phi = torch.full((3,), 0.2)
    assert parallel(x, thresholds, phi, phi)[:, 0].tolist() == [[0, 0, torch.tensor(1.2).item()]] * 4
    assert da_qcfs(x[0], thresholds, 4, phi, phi)[0].tolist() == pytest.approx([0, 0, 1.2])
    assert clipped_relu(x[0], thresholds)[0].tolist() == [0, 0, 1]


@MANY
@given(seed=st.integers(0, 2**31), steps=STEPS, dtype=st.sampled_from([torch.float32, torch.float64]))
def test_without_corrections_it_is_qcfs_to_the_last_bit(seed, steps, dtype):
    """The same operations in the same order, so that source and converted network round alike."""
    x, theta, _, _ = site(seed, dtype, dead=False)
    for threshold in (theta, theta[0, 0]):
        y = qcfs(x, threshold, steps)
        assert torch.equal(da_qcfs(x, threshold, steps), y)
        assert torch.equal(parallel_spikes(x, steps, threshold).sum(0) / steps * threshold, y)


def test_more_steps_approach_the_clipped_relu():
    x, theta, _, _ = site(4, dead=False)
    x = torch.minimum(x, theta)  # inside the recorded maxima, where ReLU and clipped ReLU are one
    for steps in (1, 8, 64, 512):
        error = (parallel(x.expand(steps, *x.shape), theta).mean(0) - x.relu()).abs()
        assert (error <= theta / (2 * steps) + 1e-12).all()
    assert torch.equal(clipped_relu(x, theta), x.relu())


def test_vectors():
    x = torch.randn(4, 2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(parallel(x, 1.3).mean(0), naive_qcfs(x.mean(0), 1.3, 4), rtol=0, atol=1e-12)


def test_gradient_is_straight_through():
    """Of mean currents away from the ends of the range, and of the threshold as QCFS's rule has it."""
    x, _, _, _ = site(5)
    mean = x.clone().requires_grad_()
    theta = torch.tensor([1.1], dtype=torch.float64, requires_grad=True)
    rate = parallel(mean.expand(6, *mean.shape), theta).mean(0)
    weights = site(6)[0]
    (rate * weights).sum().backward()
    level = 6 * x / 1.1 + 0.5
    inside, outside = (level > 0.51) & (level < 6.49), (level < 0.49) | (level > 6.51)
    assert inside.any()
    torch.testing.assert_close(mean.grad[inside], weights[inside], rtol=0, atol=1e-6)
    assert not mean.grad[outside].any()
    slope = torch.where(inside, (rate.detach() - x) / 1.1, (level > 6.5).double())
    torch.testing.assert_close(theta.grad, (slope * weights).sum().reshape(1), rtol=1e-6, atol=1e-6)


def test_half_precision_counts_in_float32():
    x, _, _, _ = site(7, torch.bfloat16)
    spikes = parallel_spikes(x, 16, 1.3)
    assert spikes.dtype is torch.bfloat16
    assert torch.equal(spikes.float(), parallel_spikes(x.float(), 16, 1.3))
    assert da_qcfs(x, 1.3, 16).dtype is torch.bfloat16


def test_no_time_is_refused():
    with pytest.raises(ValueError, match="time_steps must be at least 1, got 0"):
        parallel_spikes(torch.zeros(3), 0)


# ---------------------------------------------------------------- calibration


def naive_calibrate_step(x0, x1, theta, steps, phi_in, phi_out, reference, momentum):
    def average(a):  # per channel, element by element
        return torch.stack([sum(a[:, c].flatten()) / a[:, c].numel() for c in range(a.shape[1])])

    shape = (-1, *(1,) * (x0.dim() - 2))
    phi_in = momentum * phi_in + (1 - momentum) * average(x1 - x0).reshape(shape)
    level = ((x0 + phi_in) * steps / theta + 0.5).floor() / steps
    y0 = level.clamp(0, 1) * (theta + phi_out)
    y1 = reference(x1)
    return y0, y1, phi_in, momentum * phi_out + (1 - momentum) * average(y1 - y0).reshape(shape)


@MANY
@given(
    seed=st.integers(0, 2**31),
    steps=STEPS,
    levels=st.sampled_from([None, 4, 8]),
    momentum=st.sampled_from([0.5, 0.99]),
    vectors=st.booleans(),
)
def test_steps_of_calibration(seed, steps, levels, momentum, vectors):
    generator = torch.Generator().manual_seed(seed)
    shape = (5, 3) if vectors else (2, 3, 4, 5)
    batches = torch.randn(4, 2, *shape, generator=generator, dtype=torch.float64)
    theta = site(seed, dead=False)[1].reshape(3, *(1,) * (len(shape) - 2))
    if levels is None:
        ours = partial(clipped_relu, v_threshold=theta)
        theirs = lambda x: torch.minimum(x.clamp(min=0), theta)  # noqa: E731
    else:
        ours = partial(da_qcfs, v_threshold=theta, time_steps=levels)
        theirs = partial(naive_qcfs, theta=theta, levels=levels)
    phi = want_phi = (torch.zeros_like(theta), torch.zeros_like(theta))
    for low, ref in batches:
        y_low, y_ref, *phi = calibrate_step(low, ref, theta, steps, *phi, ours, momentum)
        want_low, want_ref, *want_phi = naive_calibrate_step(
            low, ref, theta, steps, *want_phi, theirs, momentum
        )
        for got, want in zip((y_low, y_ref, *phi), (want_low, want_ref, *want_phi), strict=True):
            assert got.shape == want.shape
            torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_equal_copies_need_no_correction():
    x, theta, _, _ = site(8, dead=False)
    zeros = torch.zeros_like(theta)
    reference = partial(da_qcfs, v_threshold=theta, time_steps=6)
    y_low, y_ref, phi_in, phi_out = calibrate_step(x, x, theta, 6, zeros, zeros, reference)
    assert torch.equal(y_low, y_ref)
    assert not phi_in.any()
    assert not phi_out.any()


def test_a_constant_mismatch_is_learnt_at_the_pace_of_the_momentum():
    x, theta, _, _ = site(9, dead=False)
    shift = torch.tensor([0.3, -0.2, 0.05], dtype=torch.float64).reshape(3, 1, 1)
    phi_in = phi_out = torch.zeros_like(theta)
    for batch in range(1, 51):
        reference = partial(clipped_relu, v_threshold=theta)
        _, _, phi_in, phi_out = calibrate_step(x, x + shift, theta, 4, phi_in, phi_out, reference)
        torch.testing.assert_close(phi_in, shift * (1 - 0.99**batch), rtol=1e-10, atol=0)
    assert phi_out.all()


def test_dead_channels_stay_dead_through_calibration():
    x, theta, _, _ = site(10)
    zeros = torch.zeros_like(theta)
    reference = partial(clipped_relu, v_threshold=theta)
    y_low, y_ref, phi_in, phi_out = calibrate_step(x, x + 0.1, theta, 4, zeros, zeros, reference)
    assert not y_low[:, 1].any()
    assert not y_ref[:, 1].any()
    assert not phi_out[1].any()
    assert phi_in.isfinite().all()


def test_copies_of_two_sizes_are_refused():
    x, theta, phi_in, phi_out = site(11)
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3, 4, 5\) with T levels and \(1, 3, 4, 5\)"):
        calibrate_step(x, x[:1], theta, 4, phi_in, phi_out, torch.relu)
