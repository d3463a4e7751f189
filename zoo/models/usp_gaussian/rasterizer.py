"""Images of Gaussians: what a rasteriser promises, and one in PyTorch that runs on every device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from zoo.models.usp_gaussian import harmonics
from zoo.models.usp_gaussian.blend import Blend, forms
from zoo.models.usp_gaussian.projection import project
from zoo.models.usp_gaussian.tiles import Tiling, list_tiles, reach

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.models.usp_gaussian.projection import Intrinsics


@dataclass(frozen=True, kw_only=True)
class Splats:
    """N Gaussians in space.

    Attributes:
        means: centres ``[N, 3]``.
        quaternions: orientations w, x, y, z of any length but 0, ``[N, 4]``.
        scales: standard deviations along their axes, positive, ``[N, 3]``.
        opacities: between 0 and 1, ``[N]``.
        harmonics: coefficients of their colours ``[N, K, C]``, see `harmonics`.
    """

    means: Tensor
    quaternions: Tensor
    scales: Tensor
    opacities: Tensor
    harmonics: Tensor


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """V views by one pinhole camera.

    Attributes:
        world_to_camera: ``[V, 4, 4]``; it looks along z, x points right and y down.
        intrinsics: focal lengths and principal point in pixels.
        height: H.
        width: W.
    """

    world_to_camera: Tensor
    intrinsics: Intrinsics
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """What was drawn.

    Attributes:
        image: ``[V, H, W, C]``, the background included.
        alpha: how much the Gaussians cover, 0 to 1, ``[V, H, W, 1]``.
        means: centres on the images, pixels, ``[V, N, 2]``; its gradient tells densification where to add.
        radii: of the boxes that are drawn, pixels, the larger one, ``[V, N]``; 0 where nothing is drawn.
    """

    image: Tensor
    alpha: Tensor
    means: Tensor
    radii: Tensor


class Rasterizer(Protocol):
    """Draws Gaussians, differentiably in all of them and in the poses."""

    def __call__(
        self, splats: Splats, cameras: Cameras, *, degree: int = 0, background: Tensor | None = None
    ) -> Rendering:
        """Draw.

        Args:
            splats: the Gaussians.
            cameras: the views.
            degree: of the spherical harmonics that are used.
            background: colour behind everything ``[C]``; missing: black.
        """
        ...


class TorchRasterizer:
    """A rasteriser in PyTorch, for CPUs and for tests; it follows gsplat's antialiased mode.

    Memory grows with the pairs of a tile and a Gaussian that it shows, not with those of a pixel and a
    Gaussian; see `zoo.models.usp_gaussian.blend`.

    Args:
        antialiased: multiply opacities by the share that the blur leaves, as the authors do.
        min_alpha: smaller contributions are left out, 1/255 as in gsplat; 1e-6 is next to none.
        tile: pixels of a tile's side.
    """

    def __init__(self, *, antialiased: bool = True, min_alpha: float = 1 / 255, tile: int = 8) -> None:
        if not 0 < min_alpha < 1:
            raise ValueError(f"min_alpha must be between 0 and 1, got {min_alpha!r}")
        if tile < 1:
            raise ValueError(f"tile must be at least 1 pixel, got {tile!r}")
        self.antialiased, self.min_alpha, self.tile = antialiased, min_alpha, tile

    def __call__(
        self, splats: Splats, cameras: Cameras, *, degree: int = 0, background: Tensor | None = None
    ) -> Rendering:
        """Draw; see `Rasterizer`."""
        poses = cameras.world_to_camera
        seen = project(splats.means, splats.quaternions, splats.scales, poses, cameras.intrinsics)
        opacities = splats.opacities.clamp_min(1e-12).log().expand(len(poses), -1)
        if self.antialiased:
            opacities = opacities + seen.compensation.log()
        tiling = Tiling(views=len(poses), height=cameras.height, width=cameras.width, side=self.tile)
        extents = reach(seen, opacities, self.min_alpha)
        lists = list_tiles(seen, extents, tiling)
        form = forms(
            seen.means.reshape(-1, 2)[lists.splat],
            seen.covariances.reshape(-1, 3)[lists.splat],
            opacities.reshape(-1)[lists.splat],
            tiling.centres(seen.means)[lists.tile],
        )
        color = harmonics.colors(splats.harmonics, splats.means, poses, degree)
        color = color.reshape(-1, color.shape[-1])[lists.splat]
        drawn, rest = Blend.apply(form, color, lists.counts, self.tile, self.min_alpha)
        if background is not None:
            drawn = drawn + rest * background
        with torch.no_grad():
            radii = extents.amax(dim=-1)
        return Rendering(
            image=tiling.images(drawn), alpha=tiling.images(1 - rest), means=seen.means, radii=radii
        )
