"""The QCFS activation: its values, its written-out gradients, and that programs see one node."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spiking import qcfs as module
from spiking.qcfs import ORDERS, QCFS, qcfs

THETAS = (0.75, 1.0, 8.0, 3.2)


def naive(x, theta, levels, order):
    """Values and derivatives, straight from the equations."""
    r = torch.floor(x * levels / theta + 0.5)
    y = theta * torch.minimum(torch.maximum(r / levels, torch.zeros_like(r)), torch.ones_like(r))
    inside = (r >= 0) & (r <= levels) if order == "floor_first" else (x >= 0) & (x <= theta)
    above = r > levels if order == "floor_first" else x > theta
    by_theta = torch.where(inside, (y - x) / theta, above.to(x.dtype))
    return y, inside.to(x.dtype), by_theta


def spread(levels, theta, count=400, dtype=torch.float64, seed=0):
    """Inputs from below the lowest bin to above the highest, bin middles among them, none on a boundary."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, generator=generator, dtype=dtype) * 2.4 - 0.7
    middles = torch.arange(-2, levels + 3, dtype=dtype) / levels
    x = torch.cat([x, middles])
    z = x * levels + 0.5
    return x[(z - z.round()).abs() > 1e-3] * theta


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("levels", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("theta", THETAS)
def test_values_and_gradients(levels, theta, order):
    x = spread(levels, theta).requires_grad_()
    v_threshold = torch.tensor([theta], dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = qcfs(x, v_threshold, levels, order)
    (y * upstream).sum().backward()
    expected, by_x, by_theta = naive(x.detach(), theta, levels, order)
    torch.testing.assert_close(y.detach(), expected)
    torch.testing.assert_close(x.grad, by_x * upstream)
    torch.testing.assert_close(v_threshold.grad, (by_theta * upstream).sum().reshape(1))


@settings(max_examples=60, deadline=None)
@given(
    levels=st.integers(1, 32),
    theta=st.floats(0.05, 20.0),
    seed=st.integers(0, 1000),
)
def test_values_are_levels_and_stay(levels, theta, seed):
    v_threshold = torch.tensor([theta], dtype=torch.float64)
    x = torch.randn(200, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 * theta
    y = qcfs(x, v_threshold, levels)
    counts = y * levels / v_threshold
    torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-9)
    assert y.min() >= 0
    assert y.max() <= theta * (1 + 1e-12)
    torch.testing.assert_close(qcfs(y, v_threshold, levels), y, rtol=1e-12, atol=0)


def test_ties_go_up():
    levels = 4
    x = (torch.arange(levels) + 0.5) / levels  # rounding half to even would send every other one down
    assert torch.equal(qcfs(x, torch.ones(1), levels), (torch.arange(levels) + 1.0) / levels)


def test_lowest_and_highest_bin_train():
    """Bins whose values lie on the clip's bounds, where torch.clamp's gradient changed in torch 2.14."""
    levels, theta = 4, torch.tensor([2.0], requires_grad=True)
    x = torch.tensor([-0.2, 0.2, 1.8, 2.2, -0.3, 2.3], requires_grad=True)
    qcfs(x, theta, levels, "floor_first").sum().backward()
    assert x.grad.tolist() == [1, 1, 1, 1, 0, 0]
    assert theta.grad.item() == pytest.approx((0.2 - 0.2 + 0.2 - 0.2) / 2 + 1)
    x.grad = theta.grad = None
    qcfs(x, theta, levels, "clip_first").sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0, 0, 0]
    assert theta.grad.item() == pytest.approx((-0.2 + 0.2) / 2 + 2)
    bounds = torch.tensor([0.0, 2.0], requires_grad=True)
    qcfs(bounds, theta.detach(), levels, "clip_first").sum().backward()
    assert bounds.grad.tolist() == [1, 1]


@pytest.mark.parametrize("order", ORDERS)
def test_threshold_by_channel(order):
    theta = torch.tensor([0.5, 1.0, 2.0]).reshape(3, 1, 1).requires_grad_()
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = qcfs(x, theta, 4, order)
    y.square().sum().backward()
    for c in range(3):
        own_x = x.detach()[:, c].requires_grad_()
        own = theta.detach()[c].reshape(1).requires_grad_()
        alone = qcfs(own_x, own, 4, order)
        alone.square().sum().backward()
        assert torch.equal(y[:, c], alone)
        assert torch.equal(x.grad[:, c], own_x.grad)
        torch.testing.assert_close(theta.grad[c].reshape(1), own.grad)


def plainly(monkeypatch, call):
    """The result without the compiled kernels."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "fits_kernel", lambda x, v_threshold: False)
        return call()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (2, 3, 7, 5), (4, 16, 64, 64), (0, 3)])
def test_kernel_equals_single_operations(shape, dtype, order, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=generator) * 2).to(dtype)
    if len(shape) == 4:
        x = x.to(memory_format=torch.channels_last)
    grad = torch.randn(shape, generator=generator).to(dtype)
    theta = torch.tensor([1.7])
    assert module.fits_kernel(x, theta)

    def run():
        own_x, own_theta = x.clone().requires_grad_(), theta.clone().requires_grad_()
        y = qcfs(own_x, own_theta, 4, order)
        y.backward(grad)
        return y.detach(), own_x.grad, own_theta.grad

    fast, plain = run(), plainly(monkeypatch, run)
    assert torch.equal(fast[0], plain[0])
    assert torch.equal(fast[1], plain[1])
    torch.testing.assert_close(fast[2], plain[2], rtol=1e-4, atol=1e-4)
    assert fast[0].stride() == plain[0].stride()


def test_kernel_keeps_what_is_not_finite(monkeypatch):
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.4])
    y = qcfs(x, torch.tensor([2.0]), 4)
    torch.testing.assert_close(y, torch.tensor([float("nan"), 2.0, 0.0, 0.5]), equal_nan=True)
    torch.testing.assert_close(
        plainly(monkeypatch, lambda: qcfs(x, torch.tensor([2.0]), 4)), y, equal_nan=True
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    x = torch.randn(500, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    theta = torch.tensor([1.3], requires_grad=True)
    y = qcfs(x, theta, 8)
    full_x, full_theta = x.detach().float().requires_grad_(), theta.detach().clone().requires_grad_()
    full = qcfs(full_x, full_theta, 8)
    assert y.dtype == dtype
    assert torch.equal(y, full.to(dtype))
    y.sum().backward()
    full.sum().backward()
    assert x.grad.dtype == dtype
    assert torch.equal(x.grad.float(), full_x.grad)
    torch.testing.assert_close(theta.grad, full_theta.grad, rtol=1e-5, atol=1e-5)


def test_autocast():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), QCFS(4, 1.0))
    with torch.autocast("cpu", torch.bfloat16):
        y = net(torch.randn(3, 6))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert net[1].v_threshold.grad.dtype == torch.float32


def test_memory_format_is_kept():
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    y = qcfs(x, torch.ones(1), 4)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(
        torch.ops.fulgurite.qcfs.default, (x, torch.ones(1, requires_grad=True), 4, "floor_first")
    )


def test_operator_keeps_torchs_rules():
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    for theta in (torch.ones(1), torch.ones(3, 1, 1)):
        theta.requires_grad_()
        torch.library.opcheck(torch.ops.fulgurite.qcfs.default, (x, theta, 4, "clip_first"))
    grad = torch.randn(2, 3, 4, 4)
    args = (grad, x.detach(), theta.detach(), 4, "floor_first")
    torch.library.opcheck(torch.ops.fulgurite.qcfs_backward.default, args)


def test_second_derivative_is_refused():
    x = torch.randn(5, requires_grad=True)
    (first,) = torch.autograd.grad(qcfs(x, torch.ones(1), 4).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        first.sum().backward()


@pytest.mark.export
def test_exported_programs_see_one_node():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), QCFS(4), nn.Flatten(), nn.Linear(144, 2)
    ).eval()
    x = torch.randn(2, 3, 8, 8)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False)
    program = program.run_decompositions({})
    nodes = [n for n in program.graph.nodes if n.target is torch.ops.fulgurite.qcfs.default]
    assert len(nodes) == 1
    assert nodes[0].args[2:] == (4, "clip_first")
    torch.testing.assert_close(program.module()(x), net(x))
    assert program.module()(torch.randn(5, 3, 8, 8)).shape == (5, 2)


@pytest.mark.compile
@pytest.mark.parametrize("order", ORDERS)
def test_compiled_training_agrees(order):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), QCFS(4, 1.0, order), nn.Linear(8, 2))
    x = torch.randn(3, 6)
    net(x).square().sum().backward()
    expected = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    compiled(x).square().sum().backward()
    for parameter, grad in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, grad)


def test_module():
    site = QCFS(8)
    assert site.v_threshold.shape == (1,)
    assert site.v_threshold.item() == 8.0
    assert site.v_threshold.requires_grad
    assert repr(site) == "QCFS(levels=8, order='clip_first')"
    assert list(site.state_dict()) == ["v_threshold"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: QCFS(0), ValueError, "levels must be an integer of at least 1, got 0"),
        (lambda: QCFS(4.0), ValueError, "levels must be an integer"),
        (lambda: QCFS(4, order="round"), ValueError, "floor_first, clip_first, got 'round'"),
        (lambda: QCFS(4, v_threshold=0.0), ValueError, "v_threshold must be positive"),
        (lambda: QCFS(4, v_threshold=float("nan")), ValueError, "v_threshold must be positive"),
        (lambda: qcfs(torch.ones(3, dtype=torch.int), torch.ones(1), 4), TypeError, "floating point"),
        (lambda: qcfs(torch.ones(3), torch.ones(2), 4), ValueError, r"\(2,\) does not broadcast to x \(3,\)"),
        (lambda: qcfs(torch.ones(3), torch.ones(3, 3), 4), ValueError, "does not broadcast"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
