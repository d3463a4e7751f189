"""COS against its own description, neuron by neuron, and its exact properties in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conversion.methods.cos import cos, initial_membrane
from conversion.methods.integrate_fire import integrate_fire

MANY = settings(deadline=None, max_examples=100)


def naive_rehearsal(x, v):
    """Last membrane, spike count, lowest charge that fired and highest membrane of a silent step."""
    n, lowest, highest = torch.zeros_like(v), torch.full_like(v, 1000.0), torch.full_like(v, -1000.0)
    for x_t in x:
        u = v + x_t
        fires = u >= 1
        v = torch.where(fires, u - 1, u)
        n = n + fires
        lowest = torch.where(fires & (u < lowest), u, lowest)
        highest = torch.where(~fires & (v > highest), v, highest)
    return v, n, lowest, highest


def naive_initial_membrane(x, rho, iterations):
    v0 = torch.full_like(x[0], 0.5)
    first, n, _, _ = naive_rehearsal(x[:rho], v0)
    for k in range(iterations):
        _, _, lowest, highest = naive_rehearsal(x[:rho], v0)
        down, up = (lowest - 0.999).clamp(min=1), (1.001 - highest).clamp(min=1)
        v0 = torch.where(first >= k + 1, v0 + up, torch.where((first < -k) & (n > k), v0 - down, v0))
    return v0


def drive(steps, *shape, seed=0, dtype=torch.float32, kind="wide"):
    """The four kinds of input for which the properties were established."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(steps, *shape, generator=generator, dtype=torch.float64)
    offset = torch.randn(shape, generator=generator, dtype=torch.float64) * 0.6
    if kind == "narrow":
        noise = 0.2 * noise
    elif kind == "heavy":
        noise = 0.3 * noise.pow(3)
    elif kind == "sparse":
        noise = 2.0 * noise * (torch.rand(noise.shape, generator=generator) < 0.3)
        offset = 0.0 * offset
    return (noise + offset).to(dtype)


KINDS = st.sampled_from(["narrow", "wide", "heavy", "sparse"])


@MANY
@given(
    seed=st.integers(0, 2**31),
    rho=st.integers(1, 8),
    more=st.integers(0, 4),
    iterations=st.integers(0, 5),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    kind=KINDS,
)
def test_equals_the_loop_bit_for_bit(seed, rho, more, iterations, dtype, kind):
    x = drive(rho + more, 4, 60, seed=seed, dtype=dtype, kind=kind)
    v0 = initial_membrane(x, rho, iterations)
    assert torch.equal(v0, naive_initial_membrane(x, rho, iterations))
    assert v0.dtype is dtype
    assert torch.equal(cos(x, rho, iterations), integrate_fire(x, v0)[0])


def offset_spikes(x, spikes):
    """How many spikes too many within these steps, and where rounding cannot decide about that."""
    level = x.sum(0) + 0.5
    return spikes.sum(0) - level.floor().clamp(0, len(x)), (level - level.round()).abs() > 1e-9


@MANY
@given(seed=st.integers(0, 2**31), rho=st.sampled_from([2, 4, 6, 8]), kind=KINDS)
def test_offset_spikes_show_in_the_membrane(seed, rho, kind):
    x = drive(rho, 2000, seed=seed, dtype=torch.float64, kind=kind)
    spikes, v = integrate_fire(x)
    psi, sure = offset_spikes(x, spikes)
    n = spikes.sum(0)
    assert torch.equal((psi > 0)[sure], ((v < 0) & (n > 0))[sure])
    assert torch.equal((psi < 0)[sure], ((v >= 1) & (n < rho))[sure])
    assert torch.equal((n - (x.sum(0) + 0.5).floor())[sure], -v.floor()[sure])


@MANY
@given(seed=st.integers(0, 2**31), rho=st.sampled_from([2, 4, 6, 8]), kind=KINDS)
def test_each_iteration_takes_one_offset_spike_away(seed, rho, kind):
    x = drive(rho, 1000, seed=seed, dtype=torch.float64, kind=kind)
    psi, sure = offset_spikes(x, integrate_fire(x)[0])
    for iterations in range(1, rho + 1):
        left, _ = offset_spikes(x, cos(x, rho, iterations))
        assert torch.equal(left[sure], (psi.sign() * (psi.abs() - iterations).clamp(min=0))[sure])


@MANY
@given(seed=st.integers(0, 2**31), rho=st.sampled_from([2, 4, 6, 8]), kind=KINDS)
def test_rho_iterations_give_the_rate_of_qcfs(seed, rho, kind):
    x = drive(rho + 3, 1000, seed=seed, dtype=torch.float64, kind=kind)
    count = cos(x, rho, rho)[:rho].sum(0)
    level = x[:rho].sum(0) + 0.5
    sure = (level - level.round()).abs() > 1e-9
    assert torch.equal(count[sure], level.floor().clamp(0, rho)[sure])


def test_one_iteration_leaves_settled_neurons_alone():
    x = drive(6, 3000, dtype=torch.float64)
    v = integrate_fire(x)[1]
    settled = (v >= 0) & (v < 1)
    assert 0 < settled.double().mean() < 1
    assert (initial_membrane(x, 6)[settled] == 0.5).all()


def test_no_iteration_is_plain_qcfs():
    x = drive(9, 500)
    assert torch.equal(cos(x, 4, 0), integrate_fire(x)[0])


def test_a_saturated_neuron_fires_on():
    x = torch.full((8, 1), 2.0)
    assert initial_membrane(x, 4).item() == pytest.approx(1001.501)
    assert cos(torch.cat([x, torch.zeros(20, 1)]), 4).all()


def test_only_the_rehearsal_moves_the_start():
    x = drive(10, 300)
    assert torch.equal(initial_membrane(x, 4, 2), initial_membrane(x[:4], 4, 2))


def test_still_images_and_samples():
    still = drive(1, 4, 30)[0]
    assert torch.equal(cos(still.expand(8, -1, -1), 4), cos(still.repeat(8, 1, 1), 4))
    x = drive(7, 4, 30)
    whole = cos(x, 4, 2)
    assert torch.equal(whole, torch.cat([cos(x[:, i : i + 1], 4, 2) for i in range(4)], dim=1))


def test_half_precision_rehearses_in_float32():
    x = drive(6, 100, dtype=torch.bfloat16)
    assert torch.equal(initial_membrane(x, 4, 2), initial_membrane(x.float(), 4, 2))
    assert torch.equal(cos(x, 4).float(), cos(x.float(), 4))


def test_the_gradient_takes_the_start_for_a_constant():
    x = drive(6, 100).requires_grad_()
    v0 = initial_membrane(x, 4)
    assert not v0.requires_grad
    cos(x, 4).sum().backward()
    other = x.detach().clone().requires_grad_()
    integrate_fire(other, v0)[0].sum().backward()
    assert x.grad.any()
    assert torch.equal(x.grad, other.grad)


@pytest.mark.parametrize("rho", [0, 6])
def test_a_rehearsal_longer_than_the_sequence_is_refused(rho):
    with pytest.raises(ValueError, match=f"got rho = {rho} with T = 5"):
        cos(torch.zeros(5, 2), rho)
    with pytest.raises(ValueError, match="iterations must be at least 0, got -1"):
        cos(torch.zeros(5, 2), 4, -1)
