"""Gaussians in space as ellipses on the image of a pinhole camera (EWA splatting)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

NEAR = 0.01  # units of the scene; what is nearer is not drawn
BLUR = 0.3  # square pixels, added to every ellipse: no Gaussian falls between two pixels


@dataclass(frozen=True, kw_only=True)
class Intrinsics:
    """Focal lengths and principal point of a camera, in pixels; the first pixel's centre is (0.5, 0.5)."""

    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True, kw_only=True)
class Projected:
    """N Gaussians in V images.

    Attributes:
        means: of the ellipses, pixels, ``[V, N, 2]``.
        covariances: xx, xy, yy with the blur, square pixels, ``[V, N, 3]``.
        depths: along the viewing direction, ``[V, N]``.
        compensation: share of opacity that remains once the blur has widened an ellipse, ``[V, N]``.
        visible: whether a Gaussian is in front of the camera, ``[V, N]``.
    """

    means: Tensor
    covariances: Tensor
    depths: Tensor
    compensation: Tensor
    visible: Tensor


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """Quaternions w, x, y, z ``[..., 4]`` of any length but 0 -> rotations ``[..., 3, 3]``."""
    w, x, y, z = functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def project(
    means: Tensor, quaternions: Tensor, scales: Tensor, world_to_camera: Tensor, intrinsics: Intrinsics
) -> Projected:
    """Project Gaussians; ``C = J W S W^T J^T + 0.3 I`` (USP-Gaussian, arXiv 2411.10504, after gsplat).

    Args:
        means: centres ``[N, 3]``.
        quaternions: orientations w, x, y, z, ``[N, 4]``.
        scales: standard deviations along their axes ``[N, 3]``.
        world_to_camera: ``[V, 4, 4]``; cameras look along z, x points right and y down.
        intrinsics: of all V cameras.
    """
    rotation = world_to_camera[:, :3, :3]
    points = torch.einsum("vij,nj->vni", rotation, means) + world_to_camera[:, None, :3, 3]
    x, y, depths = points.unbind(-1)
    visible = depths > NEAR
    z = torch.where(visible, depths, 1.0)
    fx, fy = intrinsics.fx, intrinsics.fy
    centres = torch.stack([fx * x / z + intrinsics.cx, fy * y / z + intrinsics.cy], dim=-1)
    # rows of J W, and then of J W R diag(s), whose products are the covariance
    right, down, forward = rotation.unbind(1)
    across = (fx / z).unsqueeze(-1) * (right.unsqueeze(1) - (x / z).unsqueeze(-1) * forward.unsqueeze(1))
    along = (fy / z).unsqueeze(-1) * (down.unsqueeze(1) - (y / z).unsqueeze(-1) * forward.unsqueeze(1))
    axes = rotation_matrices(quaternions) * scales.unsqueeze(-2)
    u = torch.einsum("vni,nij->vnj", across, axes)
    v = torch.einsum("vni,nij->vnj", along, axes)
    xx, xy, yy = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    sharp = (torch.linalg.cross(u, v, dim=-1) ** 2).sum(-1)  # det of the unblurred one, never negative
    blurred = sharp + BLUR * (xx + yy) + BLUR * BLUR
    return Projected(
        means=centres,
        covariances=torch.stack([xx + BLUR, xy, yy + BLUR], dim=-1),
        depths=depths,
        compensation=(sharp / blurred).clamp_min(1e-12).sqrt(),
        visible=visible,
    )
