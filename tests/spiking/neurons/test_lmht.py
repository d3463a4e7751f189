"""LM-HT: its kernel against the loop, what its equations imply, and what it refuses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import spiking
from spiking import functional, kernels, reference

needs_kernel = pytest.mark.skipif(not kernels.HAS_LLVM, reason="llvmlite is not installed")


def drive(shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 1.5 + 0.8).to(dtype)


def numbers(steps, steps_in, seed=3):
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.rand(steps, steps_in, generator=generator) * 1.4 + 0.3) / steps_in
    return weight, torch.rand(steps, generator=generator) + 0.5


def both(x, steps, levels=2, theta=1.0, start=0.5, tolerance=None):
    """Run kernel and reference on equal leaves; compare outputs and all gradients."""
    weight, leak = numbers(steps, len(x))
    found = []
    for engine in ("cpu", "reference"):
        leaves = [x.detach().requires_grad_(), weight.clone().requires_grad_(), leak.clone().requires_grad_()]
        fixed = torch.tensor(theta), torch.tensor(start)
        y = functional.lmht(*leaves, *fixed, levels=levels, backend=engine)
        loss = (y.float() * drive(y.shape, seed=9)).sum()
        found.append((y, torch.autograd.grad(loss, leaves)))
    (y, grads), (want, want_grads) = found
    assert y.dtype is x.dtype
    assert x.shape[-1] < 16 or len(want.unique()) > 1, "the case must have both spikes and silence"
    torch.testing.assert_close(y, want, rtol=0, atol=0)
    torch.testing.assert_close(grads[0], want_grads[0], **(tolerance or {"rtol": 2e-5, "atol": 2e-6}))
    for grad, other in zip(grads[1:], want_grads[1:], strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-4, atol=1e-3)
    return y, grads


# ---------------------------------------------------------------- the kernel


@needs_kernel
@settings(max_examples=25, deadline=None)
@given(
    steps=st.integers(1, 9),
    steps_in=st.integers(1, 5),
    levels=st.sampled_from([1, 2, 3, 4, 8]),
    theta=st.sampled_from([0.25, 0.5, 1.0, 0.37]),
    width=st.sampled_from([16, 33, 80]),
    start=st.sampled_from([0.0, 0.5]),
)
def test_kernel_equals_the_loop(steps, steps_in, levels, theta, width, start):
    x = drive((steps_in, 2, 5, width), seed=steps) * theta * levels
    both(x, steps, levels, theta, start)


@needs_kernel
@pytest.mark.parametrize("width", [1, 15, 16, 17, 63, 64, 65, 1023, 1025, 2500])
def test_any_number_of_neurons(width):
    both(drive((2, 3, 4, width), seed=width), 2)


@needs_kernel
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(threads):
    x = drive((4, 3, 4, 2331))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        y, grads = both(x, 4)
        torch.set_num_threads(1)
        alone, alone_grads = both(x, 4)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(y, alone)
    assert torch.equal(grads[0], alone_grads[0])


@needs_kernel
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.transpose(1, 2),
        lambda x: x[:, :, :, ::2],
        lambda x: x[::2],
        lambda x: x.transpose(0, 1),
        lambda x: x[:1].expand(4, -1, -1, -1),
        lambda x: x[1:, :, :, 1:],
    ],
    ids=["permuted", "strided", "every other step", "time inside", "still image", "offset"],
)
def test_any_layout(view):
    both(view(drive((4, 4, 6, 10))), 3)


@needs_kernel
def test_channels_last_is_kept():
    x = drive((4 * 2, 5, 3, 7)).to(memory_format=torch.channels_last).unflatten(0, (4, 2))
    y, grads = both(x, 2)
    assert y.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert grads[0].flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    if dtype is torch.float16:
        from spiking.kernels.cpu.compiler import has_float16

        if not has_float16():
            pytest.skip("the machine does not convert float16")
    unit = torch.finfo(dtype).eps
    both(drive((4, 2, 3, 37), dtype=dtype), 4, tolerance={"rtol": 2 * unit, "atol": unit})


@needs_kernel
@pytest.mark.parametrize("shape", [(2, 0, 4), (2, 3, 0)])
def test_empty_batches(shape):
    x = torch.zeros(shape).requires_grad_()
    neuron = spiking.LMHT(2)
    y = neuron(x)
    assert y.shape == shape
    y.sum().backward()
    assert x.grad.shape == shape
    assert not neuron.mask.grad.any()


@needs_kernel
def test_gradient_in_another_layout_and_none():
    x, neuron = drive((2, 4, 6, 10)), spiking.LMHT(2)
    g = drive((2, 10, 6, 4), seed=2).permute(0, 3, 2, 1)
    grads = []
    for engine in ("cpu", "reference"):
        neuron.backend = engine
        leaf = x.clone().requires_grad_()
        neuron(leaf).backward(g)
        grads.append(leaf.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=2e-5, atol=2e-6)


@needs_kernel
def test_nothing_is_kept_beyond_the_input():
    x = drive((8, 4, 500)).requires_grad_()
    neuron = spiking.LMHT(8, backend="cpu")
    kept = {}

    def pack(t):
        if t.untyped_storage().data_ptr() != x.untyped_storage().data_ptr():
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        neuron(x)
    assert sum(kept.values()) < 2048  # the matrix and its sigmoid


@needs_kernel
def test_long_sequences_fall_back_to_the_loop():
    T = 17
    x, neuron = drive((T, 2, 5)), spiking.LMHT(T)
    fixed = neuron.v_threshold, neuron.v_init
    assert torch.equal(neuron(x), reference.lmht(x, neuron.matrix(), neuron.leak(), *fixed, levels=2)[0])
    neuron.backend = "cpu"
    with pytest.raises(ValueError, match="289 entries, at most 256"):
        neuron(x)


def test_second_derivatives_of_the_loop_exist():
    x = drive((3, 2, 5)).double().requires_grad_()
    neuron = spiking.LMHT(3).double()
    (g,) = torch.autograd.grad((neuron(x) ** 2).sum(), x, create_graph=True)
    g.sum().backward()
    assert x.grad.isfinite().all()


# ---------------------------------------------------------------- what the equations imply


@settings(max_examples=40, deadline=None)
@given(
    T=st.sampled_from([1, 2, 4, 8]),
    levels=st.integers(1, 5),
    exponent=st.integers(-3, 1),
    v_init=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 1000),
)
def test_a_fresh_neuron_is_a_quantiser(T, levels, exponent, v_init, seed):
    """Over T steps it emits what L T levels make of the sum of the currents, to the last bit."""
    theta = 2.0**exponent
    grid = torch.randint(-64, 128, (T, 3, 40), generator=torch.Generator().manual_seed(seed))
    x = grid * theta * levels / 64
    y = spiking.LMHT(T, levels, theta, v_init)(x).sum(0)
    want = theta * torch.clip(torch.floor((v_init * theta + x.sum(0)) / theta), 0, levels * T)
    assert torch.equal(y, want)


@pytest.mark.parametrize("T", [1, 2, 3, 6])
def test_the_identity_makes_an_integrate_and_fire_neuron(T):
    neuron = spiking.LMHT(T, levels=1, squash=False)
    neuron.set_matrix(torch.eye(T))
    x = drive((T, 4, 30)) - 0.3
    assert torch.equal(neuron(x), spiking.IF(v_reset=None)(x))


def test_a_squashed_matrix_holds_what_it_can():
    neuron = spiking.LMHT(3)
    omega = torch.tensor([[0.1, 0.6, 0.2], [0.3, 0.3, 0.3], [0.65, 0.01, 0.2]])
    neuron.set_matrix(omega)
    torch.testing.assert_close(neuron.matrix(), omega)
    with pytest.raises(ValueError, match=r"between 0 and 2 / T' = 0\.666.*squash=False"):
        neuron.set_matrix(torch.eye(3))
    with pytest.raises(ValueError, match=r"expected a matrix \[T, T'\] = \[3, 3\], got \[2, 3\]"):
        neuron.set_matrix(torch.ones(2, 3))


def test_every_step_sees_every_current():
    neuron, x = spiking.LMHT(4), drive((4, 2, 5))
    neuron.set_matrix(torch.rand(4, 4, generator=torch.Generator().manual_seed(1)) * 0.4 + 0.05)
    for j in range(4):
        moved = x.clone()
        moved[j] += 50.0
        assert (neuron(moved) >= neuron(x)).all()
        assert ((neuron(moved) > neuron(x)).flatten(1).any(1)).all()


def test_bounds_hold_whatever_the_optimiser_does():
    torch.manual_seed(0)
    neuron = spiking.LMHT(4)
    optimizer = torch.optim.SGD(neuron.parameters(), lr=1.0)
    for k in range(100):
        optimizer.zero_grad()
        (neuron(drive((4, 8, 20), seed=k)) * torch.randn(4, 8, 20)).sum().backward()
        optimizer.step()
    assert neuron.mask.abs().max() > 1.0, "the parameters have moved"
    assert ((neuron.matrix() >= 0) & (neuron.matrix() <= 2 / 4)).all()
    assert ((neuron.leak() >= 0.5) & (neuron.leak() <= 1.5)).all()


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_nothing_flows_through_the_potential(backend):
    neuron, x = spiking.LMHT(3, levels=2, backend=backend), drive((3, 2, 7)).requires_grad_()
    neuron.set_matrix(torch.rand(3, 3, generator=torch.Generator().manual_seed(1)) * 0.6 + 0.02)
    weight, leak = neuron.matrix().detach(), neuron.leak().detach()
    y = neuron(x)
    y[2].sum().backward()
    v = reference.lmht(x, weight[:2], leak[:2], neuron.v_threshold, neuron.v_init, levels=2)[1]
    m = leak[2] * v + torch.einsum("j,jbn->bn", weight[2], x)
    open_ = ((m >= 0.5) & (m <= 2.5)).float()
    torch.testing.assert_close(x.grad, weight[2].view(3, 1, 1) * open_)


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_the_slope_ends_inside(backend):
    """Both ends of the interval belong to it, and a threshold that is reached is crossed."""
    m = torch.tensor([[0.249, 0.25, 0.5, 1.0, 1.25, 1.2500001]]).requires_grad_()
    y = spiking.LMHT(1, levels=2, v_threshold=0.5, backend=backend)(m)
    assert y.tolist() == [[0.0, 0.0, 0.5, 1.0, 1.0, 1.0]]
    y.sum().backward()
    assert m.grad.tolist() == [[0.0, 1.0, 1.0, 1.0, 1.0, 0.0]]


def test_a_single_frame_counts_for_every_step():
    neuron, x = spiking.LMHT(3), drive((1, 2, 7)) / 3
    torch.testing.assert_close(neuron(x), neuron(x.expand(3, 2, 7) * 3))
    with pytest.raises(ValueError, match="got T = 1"):
        spiking.LMHT(3, squash=False)(x)


@pytest.mark.parametrize(("levels", "theta"), [(1, 1.0), (2, 1.0), (4, 0.5), (8, 0.25)])
def test_threshold_rule(levels, theta):
    assert float(spiking.LMHT(2, levels).v_threshold) == theta
    assert spiking.LMHT(2, levels)(torch.full((2, 1), 9.0)).max() == min(2.0, levels * theta)


# ---------------------------------------------------------------- LM-H


def test_a_fresh_lmh_is_an_integrate_and_fire_neuron_that_starts_half_full():
    x = drive((6, 3, 5)) - 0.3
    want = functional.if_(x, torch.full((3, 5), 0.35), v_threshold=0.7, v_reset=None)[0]
    torch.testing.assert_close(spiking.LMH(v_threshold=0.7)(x), want * 0.7, rtol=0, atol=0)


# ---------------------------------------------------------------- in models


def test_refusals():
    with pytest.raises(ValueError, match="levels must be an integer of at least 1, got 0"):
        spiking.LMHT(2, levels=0)
    with pytest.raises(ValueError, match=r"T = 4, got T = 5; its parameters fix T.*time_steps=5"):
        spiking.LMHT(4)(torch.zeros(5, 2, 3))
    with pytest.raises(RuntimeError, match="LMHT is not causal"):
        spiking.LMHT(4).step(torch.zeros(2, 3))
    model = nn.Sequential(nn.Linear(3, 3), spiking.LMHT(2)).eval()
    with pytest.raises(RuntimeError, match=r"^1 \(LMHT\) is not causal"), spiking.streaming(model):
        pass
    with pytest.raises(ValueError, match="matrix"):
        functional.lmht(torch.zeros(2, 3), torch.ones(2, 3), torch.ones(2), *torch.ones(2), levels=1)


@pytest.mark.parametrize("theta", [1.0, 0.5, 0.37])
def test_rates_and_operations_count_spikes_not_thresholds(theta):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), spiking.LMHT(4, levels=3, v_threshold=theta), nn.Linear(6, 2))
    model.time_steps = 4
    x = torch.randn(4, 8, 5) * 9 * theta
    with spiking.FiringRateMonitor(model, raster=True) as monitor:
        model(x)
    levels = (model[1](model[0](x)) / theta).round()
    assert levels.max() == 3
    assert monitor.rate() == pytest.approx(levels.mean().item())
    torch.testing.assert_close(monitor.rasters()["1"], levels[:, 0], rtol=0, atol=1e-5)
    rows = spiking.profile_energy(model, x).rows
    assert rows[1].input == "spikes"
    assert rows[1].sops == pytest.approx(levels.sum().item() * 2 / 8)


def test_state_is_saved_with_its_threshold():
    source, target = spiking.LMHT(2, 2, 0.3, 0.5, input_scale=2.0), spiking.LMHT(2)
    target.load_state_dict(source.state_dict())
    x = drive((2, 3, 5))
    assert torch.equal(source(x), target(x))
