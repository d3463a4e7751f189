"""Which Gaussians a tile of the image needs, from front to back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.models.usp_gaussian.projection import Projected


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """V images of H x W pixels in squares; those at the right and lower border may stick out.

    Attributes:
        views: V.
        height: H.
        width: W.
        side: of a tile, pixels.
    """

    views: int
    height: int
    width: int
    side: int

    @property
    def rows(self) -> int:
        """Tiles from top to bottom."""
        return -(-self.height // self.side)

    @property
    def columns(self) -> int:
        """Tiles from left to right."""
        return -(-self.width // self.side)

    @property
    def count(self) -> int:
        """Tiles of all views; their order is view, row, column."""
        return self.views * self.rows * self.columns

    def centres(self, like: Tensor) -> Tensor:
        """Where tiles have their middle, pixels, ``[tiles, 2]``."""
        x = (torch.arange(self.columns, device=like.device) + 0.5) * self.side
        y = (torch.arange(self.rows, device=like.device) + 0.5) * self.side
        grid = torch.stack([x.expand(self.rows, -1), y.unsqueeze(1).expand(-1, self.columns)], dim=-1)
        return grid.to(like.dtype).reshape(-1, 2).repeat(self.views, 1)

    def images(self, tiles: Tensor) -> Tensor:
        """``[tiles, side * side, C]`` put together: ``[V, H, W, C]``."""
        side, channels = self.side, tiles.shape[-1]
        grid = tiles.view(self.views, self.rows, self.columns, side, side, channels)
        whole = grid.transpose(2, 3).reshape(self.views, self.rows * side, self.columns * side, channels)
        return whole[:, : self.height, : self.width]


@dataclass(frozen=True, kw_only=True)
class Lists:
    """M pairs of a tile and a Gaussian that it shows, sorted by tile and then by depth.

    Attributes:
        tile: number of the tile, ``[M]``.
        splat: number of the Gaussian among those of all views, ``view * N + n``, ``[M]``.
        counts: pairs of each tile, ``[tiles]``.
    """

    tile: Tensor
    splat: Tensor
    counts: Tensor


def reach(projected: Projected, log_opacities: Tensor, min_alpha: float) -> Tensor:
    """Half the width and height of the box where alpha reaches ``min_alpha``, ``[V, N, 2]``."""
    with torch.no_grad():
        level = (2 * (log_opacities - torch.tensor(min_alpha).log())).clamp_min(0)
        extents = projected.covariances[..., ::2] * level.unsqueeze(-1)
        return extents.sqrt() * projected.visible.unsqueeze(-1)


@torch.no_grad()
def list_tiles(projected: Projected, extents: Tensor, tiling: Tiling) -> Lists:
    """Pair tiles with the Gaussians whose boxes they meet.

    Args:
        projected: N Gaussians in V images.
        extents: see `reach`.
        tiling: of the images.
    """
    order = projected.depths.argsort(dim=1, stable=True)
    views = torch.arange(tiling.views, device=order.device).unsqueeze(1)
    splats = (views * order.shape[1] + order).reshape(-1)  # front to back in each view
    means, extents = projected.means.reshape(-1, 2)[splats], extents.reshape(-1, 2)[splats]
    last = torch.tensor([tiling.columns, tiling.rows], device=order.device)
    low = ((means - extents) / tiling.side).floor().clamp(min=0).minimum(last).long()
    high = ((means + extents) / tiling.side).floor().add(1).clamp(min=0).minimum(last).long()
    span = (high - low).clamp_min(0) * (extents > 0).all(-1, keepdim=True)
    pairs = span.prod(-1)
    chosen = pairs.repeat_interleave(pairs)
    source = torch.repeat_interleave(pairs)
    within = torch.arange(len(chosen), device=order.device) - (pairs.cumsum(0) - pairs)[source]
    column = low[source, 0] + within % span[source, 0]
    row = low[source, 1] + within // span[source, 0]
    tile = (splats[source] // order.shape[1] * tiling.rows + row) * tiling.columns + column
    tile, place = tile.sort(stable=True)
    return Lists(tile=tile, splat=splats[source[place]], counts=torch.bincount(tile, minlength=tiling.count))
