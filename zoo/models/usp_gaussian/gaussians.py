"""A scene of Gaussians as parameters whose number may change while they are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from zoo.models.usp_gaussian import harmonics
from zoo.models.usp_gaussian.rasterizer import Splats

if TYPE_CHECKING:
    from torch import Tensor

NEIGHBOURS = 3  # whose mean distance is the first size of a Gaussian
_ROWS = 1024  # of a table of distances at a time


class Gaussians(nn.Module):
    """N Gaussians with spherical harmonics.

    Args:
        count: N.
        degree: of the spherical harmonics, 0 to 3.

    Attributes:
        means: centres ``[N, 3]``.
        quaternions: orientations w, x, y, z ``[N, 4]``.
        log_scales: logarithms of the standard deviations ``[N, 3]``.
        opacity_logits: ``[N]``.
        base: coefficients of the constant function, one a channel, ``[N, 3]``.
        rest: those of the other functions ``[N, (degree + 1)^2 - 1, 3]``.

    Raises:
        ValueError: no Gaussian, or another degree.
    """

    def __init__(self, count: int, degree: int = 3) -> None:
        super().__init__()
        if not 0 <= degree <= harmonics.MAX_DEGREE:
            raise ValueError(f"sh_degree must be from 0 to {harmonics.MAX_DEGREE}, got {degree!r}")
        if count < 1:
            raise ValueError(f"num_gaussians must be at least 1, got {count!r}")
        self.degree = degree
        self.means = nn.Parameter(torch.randn(count, 3))
        self.quaternions = nn.Parameter(torch.randn(count, 4))
        self.log_scales = nn.Parameter(torch.full((count, 3), -2.0))
        self.opacity_logits = nn.Parameter(torch.zeros(count))
        self.base = nn.Parameter(torch.zeros(count, 3))
        self.rest = nn.Parameter(torch.zeros(count, harmonics.count(degree) - 1, 3))

    def __len__(self) -> int:
        return len(self.means)

    @property
    def scales(self) -> Tensor:
        """Standard deviations ``[N, 3]``."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Tensor:
        """Between 0 and 1, ``[N]``."""
        return self.opacity_logits.sigmoid()

    def splats(self) -> Splats:
        """What a rasteriser draws."""
        return Splats(
            means=self.means,
            quaternions=self.quaternions,
            scales=self.scales,
            opacities=self.opacities,
            harmonics=torch.cat([self.base.unsqueeze(1), self.rest], dim=1),
        )

    def resize(self, count: int) -> None:
        """Have ``count`` Gaussians of no meaning, whose values a checkpoint will bring."""
        if count != len(self):
            for name, value in list(self.named_parameters()):
                self.put(name, value.new_zeros(count, *value.shape[1:]))

    def put(self, name: str, value: Tensor) -> nn.Parameter:
        """Replace a parameter; its ``requires_grad`` stays."""
        new = nn.Parameter(value, requires_grad=self.get_parameter(name).requires_grad)
        setattr(self, name, new)
        return new

    @torch.no_grad()
    def start_from(
        self, points: Tensor, colors: Tensor, *, opacity: float = 0.1, scale: float | None = None
    ) -> None:
        """Put a Gaussian on each point of a sparse cloud.

        Args:
            points: ``[P, 3]``.
            colors: 0 to 1, ``[P, 3]``.
            opacity: of all of them.
            scale: standard deviation of all of them; missing: the mean distance to three neighbours.

        Raises:
            ValueError: there are no points, or their number is none.
        """
        if points.dim() != 2 or not len(points) or not bool(points.isfinite().all()):
            raise ValueError(
                f"a scene starts from finite points [P, 3] with P of at least 1, got {tuple(points.shape)};"
                " COLMAP's sparse points are looked for beside transforms.json"
            )
        count = len(points)
        self.resize(count)
        sizes = distances(points) if scale is None else torch.full((count,), scale)
        start = {
            "means": points,
            "quaternions": torch.randn(count, 4),
            "log_scales": sizes.log().unsqueeze(1).expand(-1, 3),
            "opacity_logits": torch.full((count,), opacity).logit(),
            "base": (colors - 0.5) / harmonics.C0,
            "rest": torch.zeros_like(self.rest),
        }
        for name, value in start.items():
            self.get_parameter(name).copy_(value)


def distances(points: Tensor) -> Tensor:
    """Mean distance of each point to its `NEIGHBOURS` next ones, never 0, ``[P]``; 1 for a single point."""
    nearest = min(NEIGHBOURS, len(points) - 1)
    if not nearest:
        return points.new_ones(len(points))
    found = [
        torch.cdist(rows, points).topk(nearest + 1, dim=1, largest=False).values[:, 1:].mean(dim=1)
        for rows in points.split(_ROWS)
    ]
    return torch.cat(found).clamp_min(1e-7)
