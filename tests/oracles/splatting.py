"""Gaussian splatting as its plain formula: every pixel meets every Gaussian."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.models.usp_gaussian.rasterizer import Cameras, Splats


def rotation(q: Tensor) -> Tensor:
    """Quaternion w, x, y, z ``[4]`` -> ``[3, 3]``."""
    w, x, y, z = q / q.norm()
    cross = torch.stack(
        [torch.stack([0 * w, -z, y]), torch.stack([z, 0 * w, -x]), torch.stack([-y, x, 0 * w])]
    )
    return torch.eye(3, dtype=q.dtype) + 2 * w * cross + 2 * cross @ cross


def splat(
    splats: Splats, cameras: Cameras, colors: Tensor, *, min_alpha: float = 0.0, antialiased: bool = True
) -> tuple[Tensor, Tensor]:
    """Image ``[V, H, W, C]`` on black and the weights of all Gaussians ``[V, H, W]`` summed.

    Args:
        splats: the Gaussians.
        cameras: the views.
        colors: of the Gaussians in each view ``[V, N, C]``.
        min_alpha: smaller alphas count as 0.
        antialiased: multiply opacities by ``sqrt(det(C - 0.3 I) / det C)``.
    """
    lens, images, covered = cameras.intrinsics, [], []
    y, x = torch.meshgrid(torch.arange(cameras.height), torch.arange(cameras.width), indexing="ij")
    pixels = torch.stack([x, y], dim=-1).to(splats.means) + 0.5
    for pose, color in zip(cameras.world_to_camera, colors, strict=True):
        points = splats.means @ pose[:3, :3].T + pose[:3, 3]
        remaining = torch.ones_like(pixels[..., 0])
        image = torch.zeros(*remaining.shape, color.shape[-1], dtype=color.dtype)
        total = torch.zeros_like(remaining)
        for n in points[:, 2].argsort().tolist():
            px, py, pz = points[n]
            if pz <= 0.01:
                continue
            centre = torch.stack([lens.fx * px / pz + lens.cx, lens.fy * py / pz + lens.cy])
            zero = torch.zeros_like(px)
            jacobian = torch.stack(
                [
                    torch.stack([lens.fx / pz, zero, -lens.fx * px / pz**2]),
                    torch.stack([zero, lens.fy / pz, -lens.fy * py / pz**2]),
                ]
            )
            turn = rotation(splats.quaternions[n])
            spread = turn @ torch.diag(splats.scales[n] ** 2) @ turn.T
            sharp = jacobian @ pose[:3, :3] @ spread @ pose[:3, :3].T @ jacobian.T
            blurred = sharp + 0.3 * torch.eye(2, dtype=sharp.dtype)
            opacity = splats.opacities[n]
            if antialiased:
                opacity = opacity * (torch.det(sharp) / torch.det(blurred)).sqrt()
            away = pixels - centre
            form = torch.einsum("hwi,ij,hwj->hw", away, torch.linalg.inv(blurred), away)
            alpha = opacity * torch.exp(-0.5 * form)
            alpha = torch.where(alpha < min_alpha, 0 * alpha, alpha).clamp(max=0.99)
            weight = alpha * remaining
            image, total = image + weight.unsqueeze(-1) * color[n], total + weight
            remaining = remaining * (1 - alpha)
        images.append(image)
        covered.append(total)
    return torch.stack(images), torch.stack(covered)
