"""Colours that depend on the direction one looks from: real spherical harmonics up to degree 3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

C0 = 0.28209479177387814  # sqrt(1 / (4 pi)), the constant function
MAX_DEGREE = 3


def count(degree: int) -> int:
    """Functions up to a degree."""
    return (degree + 1) ** 2


def functions(directions: Tensor, degree: int) -> Tensor:
    """Values of the functions up to ``degree`` in the usual order and signs of Gaussian splatting.

    Args:
        directions: of length 1, ``[..., 3]``.
        degree: 0 to 3.

    Returns:
        ``[..., (degree + 1)^2]``.
    """
    x, y, z = directions.unbind(-1)
    found = [torch.full_like(x, C0)]
    if degree > 0:
        found += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree > 1:
        found += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * z * z - x * x - y * y),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ]
    if degree > 2:
        found += [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * z * z - x * x - y * y),
            0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y),
            -0.4570457994644658 * x * (4 * z * z - x * x - y * y),
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]
    return torch.stack(found, dim=-1)


def colors(coefficients: Tensor, means: Tensor, world_to_camera: Tensor, degree: int) -> Tensor:
    """Colours of N Gaussians as V cameras see them, never negative.

    Args:
        coefficients: ``[N, K, C]``, K at least that of the degree.
        means: ``[N, 3]``.
        world_to_camera: ``[V, 4, 4]``.
        degree: functions above it are left out.

    Returns:
        ``[V, N, C]``.
    """
    if degree == 0:
        constant = (C0 * coefficients[:, 0] + 0.5).clamp_min(0)
        return constant.expand(len(world_to_camera), -1, -1)
    rotation, shift = world_to_camera[:, :3, :3], world_to_camera[:, :3, 3]
    eyes = -torch.einsum("vji,vj->vi", rotation, shift)
    directions = functional.normalize(means - eyes.unsqueeze(1), dim=-1)
    used = coefficients[:, : count(degree)]
    return (torch.einsum("vnk,nkc->vnc", functions(directions, degree), used) + 0.5).clamp_min(0)
