"""Motions of a camera: ends, middle, orthonormal rotations, gradients at identical knots."""

from __future__ import annotations

import math

import pytest
import torch

from zoo.models.usp_gaussian import Trajectory, trajectory

EVERY = tuple(trajectory.KNOTS.items())
IDENTITY = torch.eye(4, dtype=torch.float64)


def knots(count, *batch, size=0.5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return size * torch.randn(*batch, count, 6, generator=draw, dtype=torch.float64)


def generator(xi):
    """The matrix of a tangent vector."""
    out = xi.new_zeros(*xi.shape[:-1], 4, 4)
    x, y, z = xi[..., 3:].unbind(-1)
    out[..., 0, 1], out[..., 0, 2], out[..., 1, 2] = -z, y, -x
    out[..., 1, 0], out[..., 2, 0], out[..., 2, 1] = z, -y, x
    out[..., :3, 3] = xi[..., :3]
    return out


@pytest.mark.parametrize("size", [1e-9, 1e-4, 9e-4, 1.1e-3, 0.01, 0.1, 1.0])
def test_exponential_is_that_of_matrices(size):
    xi = size * torch.nn.functional.normalize(knots(50), dim=-1)
    expected = torch.linalg.matrix_exp(generator(xi))
    torch.testing.assert_close(trajectory.se3_exp(xi), expected, rtol=0, atol=1e-12)
    omega = xi[..., 3:]
    torch.testing.assert_close(trajectory.so3_log(trajectory.so3_exp(omega)), omega, rtol=0, atol=1e-12)


def test_half_turns():
    axis = torch.nn.functional.normalize(torch.tensor([[1.0, 2.0, -0.5]], dtype=torch.float64), dim=-1)
    for angle in (math.pi - 1e-9, math.pi):
        back = trajectory.so3_log(trajectory.so3_exp(angle * axis))
        torch.testing.assert_close(back.norm(dim=-1), torch.tensor([angle], dtype=torch.float64))
        assert back.isfinite().all()


def test_ends_and_middle_of_a_line():
    both = knots(2, 3)
    path = trajectory.interpolate(both, torch.tensor([0.0, 0.5, 1.0]))
    near = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(path[:, [0, 2]], trajectory.se3_exp(both), **near)
    torch.testing.assert_close(path[:, 1], trajectory.midpoint(both), **near)
    # equal angles to either side of the middle
    first, middle, last = (
        trajectory.interpolate(both, torch.tensor([u]))[:, 0, :3, :3] for u in (0.1, 0.5, 0.9)
    )
    torch.testing.assert_close(first.mT @ middle, middle.mT @ last, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("kind", "count"), EVERY)
def test_rotations_stay_rotations(kind, count):
    path = trajectory.interpolate(knots(count, 4).float(), torch.linspace(0, 1, 13), kind)
    assert path.shape == (4, 13, 4, 4)
    turned = path[..., :3, :3]
    torch.testing.assert_close(turned @ turned.mT, torch.eye(3).expand_as(turned), rtol=0, atol=2e-6)
    torch.testing.assert_close(torch.linalg.det(turned), torch.ones(4, 13), rtol=0, atol=2e-6)
    assert torch.equal(path[..., 3, :], torch.tensor([0.0, 0, 0, 1]).expand(4, 13, 4))
    torch.testing.assert_close(
        trajectory.midpoint(knots(count, 4), kind),
        trajectory.interpolate(knots(count, 4), torch.tensor([0.5]), kind)[:, 0],
    )


@pytest.mark.parametrize(("kind", "count"), EVERY)
@pytest.mark.parametrize("value", [0.0, 1e-12, 1e-5, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_knots_have_finite_gradients(kind, count, value, dtype):
    same = torch.full((2, count, 6), value, dtype=dtype, requires_grad=True)
    path = trajectory.interpolate(same, torch.linspace(0, 1, 5), kind)
    (path * torch.randn(path.shape, dtype=dtype, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert same.grad.isfinite().all()
    assert (same.grad != 0).any(-1).any()
    if value == 0:
        assert torch.equal(path.detach(), torch.eye(4, dtype=dtype).expand_as(path))


@pytest.mark.parametrize(("kind", "count"), EVERY)
@pytest.mark.parametrize("size", [0.5, 1e-4])
def test_gradients(kind, count, size):
    u = torch.linspace(0, 1, 3, dtype=torch.float64)
    given = knots(count, size=size).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: trajectory.interpolate(x, u, kind), given)


def test_no_motion_leaves_the_camera_alone():
    camera = trajectory.se3_exp(knots(1))
    for kind, count in EVERY:
        still = trajectory.interpolate(torch.zeros(count, 6, dtype=torch.float64), torch.tensor([0.3]), kind)
        assert torch.equal(camera @ still, camera)


def test_constant_speed_of_the_spline():
    # knots in a row, evenly spaced, without rotation: a straight line from the second to the third
    row = torch.zeros(4, 6)
    row[:, 0] = torch.arange(4)
    path = trajectory.interpolate(row, torch.linspace(0, 1, 5), "cubic")
    torch.testing.assert_close(path[:, 0, 3], torch.linspace(1, 2, 5))


def test_the_module():
    torch.manual_seed(0)
    learnt = Trajectory(6, "cubic", std=1e-3)
    assert learnt.knots.shape == (6, 4, 6)
    u = [0.0, 0.5, 1.0]
    path = learnt(torch.tensor([4, 1]), u)
    assert path.shape == (2, 3, 4, 4)
    one = trajectory.interpolate(learnt.knots[1], torch.tensor(u), "cubic")
    torch.testing.assert_close(path[1], one, rtol=0, atol=1e-6)
    path.sum().backward()
    assert learnt.knots.grad[[0, 2, 3, 5]].eq(0).all()
    assert Trajectory(2).knots.abs().max() < 1e-3


def test_what_is_refused():
    with pytest.raises(ValueError, match="unknown trajectory 'line'; known: linear, cubic, bezier"):
        Trajectory(2, "line")
    with pytest.raises(ValueError, match="views must be at least 1, got 0"):
        Trajectory(0)
    with pytest.raises(ValueError, match="a cubic trajectory has 4 knots, got 2"):
        trajectory.interpolate(torch.zeros(2, 6), torch.tensor([0.0]), "cubic")
