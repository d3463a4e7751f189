"""How a camera moves during one exposure: interpolation between knots on SE(3).

Knots are tangent vectors ``(rho, omega)``, the part of the translation first; the exponential maps them to
rigid motions. Rotations are quaternions (w, x, y, z) inside, so that angles up to pi and identical knots
have finite values and gradients. The spline follows BAD-Gaussians (arXiv 2403.11831), which USP-Gaussian
(arXiv 2411.10504) builds on.

Axes: V views, K knots, U positions on the trajectory.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from zoo.models.usp_gaussian.projection import rotation_matrices

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["linear", "cubic", "bezier"]
KNOTS: dict[str, int] = {"linear": 2, "cubic": 4, "bezier": 9}

_SMALL = 1e-6  # of squared angles: below it the series are exact to float32 rounding


def so3_exp(omega: Tensor) -> Tensor:
    """Rotation vectors ``[..., 3]`` in radians -> unit quaternions ``[..., 4]`` (w, x, y, z)."""
    squared = omega.square().sum(-1, keepdim=True)
    small = squared < _SMALL
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    sine = torch.where(small, 0.5 - squared / 48, (angle / 2).sin() / angle)
    cosine = torch.where(small, 1 - squared / 8, (angle / 2).cos())
    return torch.cat([cosine, sine * omega], -1)


def so3_log(quaternion: Tensor) -> Tensor:
    """Unit quaternions ``[..., 4]`` (w, x, y, z) -> rotation vectors ``[..., 3]`` of at most pi."""
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    w, vector = quaternion[..., :1], quaternion[..., 1:]
    squared = vector.square().sum(-1, keepdim=True)
    small = squared < _SMALL
    length = torch.where(small, torch.ones_like(squared), squared).sqrt()
    whole = torch.where(small, w, torch.ones_like(w))
    series = 2 / whole * (1 - squared / (3 * whole.square()))
    scale: Tensor = torch.where(small, series, 2 * torch.atan2(length, w) / length)
    return scale * vector


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Product of quaternions ``[..., 4]``: the rotation ``b``, then ``a``."""
    aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    w = aw * bw - (av * bv).sum(-1, keepdim=True)
    return torch.cat([w, aw * bv + bw * av + torch.linalg.cross(av, bv)], -1)


def inverse(quaternion: Tensor) -> Tensor:
    """The opposite rotation of unit quaternions ``[..., 4]``."""
    return torch.cat([quaternion[..., :1], -quaternion[..., 1:]], -1)


def _translation(xi: Tensor) -> Tensor:
    """The translation ``[..., 3]`` of ``exp(xi)``: the left Jacobian of the rotation times ``rho``."""
    rho, omega = xi[..., :3], xi[..., 3:]
    squared = omega.square().sum(-1, keepdim=True)
    small = squared < 1e-4  # (angle - sin angle) loses its digits earlier than the others
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    first = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / safe)
    second = torch.where(small, 1 / 6 - squared / 120, (angle - angle.sin()) / (safe * angle))
    once: Tensor = torch.linalg.cross(omega, rho)
    twice: Tensor = torch.linalg.cross(omega, once)
    return rho + first * once + second * twice


def se3_exp(xi: Tensor) -> Tensor:
    """Tangent vectors ``[..., 6]``, translation first -> rigid motions ``[..., 4, 4]``."""
    return _motion(_translation(xi), so3_exp(xi[..., 3:]))


def _motion(translation: Tensor, quaternion: Tensor) -> Tensor:
    upper = torch.cat([rotation_matrices(quaternion), translation.unsqueeze(-1)], -1)
    last = upper.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*upper.shape[:-2], 1, 4)
    return torch.cat([upper, last], -2)


def interpolate(knots: Tensor, u: Tensor, kind: Kind = "linear") -> Tensor:
    """The camera's motion relative to its initial pose at positions of the exposure.

    ``linear``: translations are mixed, the rotation is ``R0 exp(u log(R0^-1 R1))``, which returns the two
    knots at u = 0 and 1. ``cubic``: a cumulative B-spline of four knots. ``bezier``: the product of the
    motions ``exp(b_k(u) xi_k)``, with the weights b of a Bezier curve.

    Args:
        knots: tangent vectors ``[..., K, 6]``; K is 2, 4, or for ``bezier`` any number.
        u: positions in [0, 1], ``[U]``.
        kind: the curve.

    Returns:
        ``[..., U, 4, 4]``; multiply a camera-to-world matrix by it from the right.

    Raises:
        ValueError: an unknown curve, or a number of knots that it does not have.
    """
    check_kind(kind, knots.shape[-2])
    u = u.to(knots)
    translations, quaternions = _translation(knots), so3_exp(knots[..., 3:])
    if kind == "linear":
        weights = torch.stack([1 - u, u], -1)
        return _motion(weights @ translations, _along(quaternions, u.unsqueeze(-1)))
    if kind == "cubic":
        mixed, cumulative = _cubic(u)
        return _motion(mixed @ translations, _along(quaternions, cumulative))
    moved = se3_exp(_bernstein(u, knots.shape[-2]).unsqueeze(-1) * knots.unsqueeze(-3))
    product: Tensor = reduce(torch.matmul, moved.unbind(-3))
    return product


def midpoint(knots: Tensor, kind: Kind = "linear") -> Tensor:
    """The pose at u = 1/2, at which a scene is evaluated: ``[..., K, 6]`` -> ``[..., 4, 4]``."""
    return interpolate(knots, knots.new_tensor([0.5]), kind).squeeze(-3)


def check_kind(kind: str, knots: int | None = None) -> None:
    """Refuse an unknown curve or a number of knots that does not belong to it.

    Raises:
        ValueError: says which curves there are, or how many knots are needed.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"unknown trajectory {kind!r}; known: {', '.join(get_args(Kind))}")
    if knots is None or knots == KNOTS[kind] or (kind == "bezier" and knots >= 2):
        return
    raise ValueError(f"a {kind} trajectory has {KNOTS[kind]} knots, got {knots}")


def _along(quaternions: Tensor, weights: Tensor) -> Tensor:
    """From the first of K rotations along the K - 1 steps to the others, each taken in part.

    Args:
        quaternions: ``[..., K, 4]``.
        weights: how much of each step is taken, ``[U, K - 1]``.

    Returns:
        ``[..., U, 4]``.
    """
    steps = so3_log(multiply(inverse(quaternions[..., :-1, :]), quaternions[..., 1:, :]))
    now = quaternions[..., :1, :].expand(*quaternions.shape[:-2], len(weights), 4)
    for k in range(steps.shape[-2]):
        now = multiply(now, so3_exp(weights[:, k : k + 1] * steps[..., k : k + 1, :]))
    return now


def _cubic(u: Tensor) -> tuple[Tensor, Tensor]:
    """Uniform cubic B-spline: weights ``[U, 4]`` of the knots, and of the steps between them ``[U, 3]``."""
    u2, u3 = u * u, u * u * u
    basis = torch.stack([(1 - u) ** 3, 3 * u3 - 6 * u2 + 4, 3 * (u + u2 - u3) + 1, u3], -1) / 6
    return basis, basis.flip(-1).cumsum(-1).flip(-1)[:, 1:]


def _bernstein(u: Tensor, knots: int) -> Tensor:
    """Weights ``[U, K]`` of a Bezier curve."""
    order = knots - 1
    terms = [math.comb(order, k) * (1 - u) ** (order - k) * u**k for k in range(knots)]
    return torch.stack(terms, -1)


class Trajectory(nn.Module):
    """Learnt motions of the camera, one for each view.

    Args:
        views: V.
        kind: the curve, see `interpolate`.
        std: of the initial knots; zero would do as well, but equal knots give equal gradients.

    Attributes:
        knots: tangent vectors ``[V, K, 6]``.
    """

    def __init__(self, views: int, kind: Kind = "linear", std: float = 1e-5) -> None:
        super().__init__()
        check_kind(kind)
        if views < 1:
            raise ValueError(f"views must be at least 1, got {views}")
        self.kind: Kind = kind
        self.knots = nn.Parameter(std * torch.randn(views, KNOTS[kind], 6))

    def forward(self, view: Tensor, u: Tensor | Sequence[float]) -> Tensor:
        """Motions of some views.

        Args:
            view: numbers of views, ``[N]``.
            u: positions in [0, 1], ``[U]``.

        Returns:
            ``[N, U, 4, 4]``, to be multiplied to camera-to-world matrices from the right.
        """
        return interpolate(self.knots[view], torch.as_tensor(u, device=self.knots.device), self.kind)
