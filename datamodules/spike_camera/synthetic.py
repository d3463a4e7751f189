"""A made-up scene for a spike camera: Gaussians, cameras that shake, and noise; nothing to download.

Axes: V views, T frames, H W pixels, K frames whose true image is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from datamodules.spike_camera.render import Gaussians, render
from datamodules.spike_camera.scene import FRAMES, SpikeScene
from datamodules.spike_camera.simulate import (
    GAIN,
    NOISE_INTERVAL,
    THRESHOLD,
    add_noise,
    noise_positions,
    simulate_physical,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

FIRST, LAST = 40, 136  # the exposure
SHARP = tuple(range(FIRST, LAST + 1, 8))
DISTANCE, ANGLE, FOCAL = 4.0, 0.14, 30 / 32  # of cameras; radians between them; focal length over width


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a made-up scene is made.

    Attributes:
        seed: of everything.
        views: V.
        height: H.
        width: W.
        gaussians: how many.
        shake: deviations of the camera's motion to either side of the middle: translation, rotation.
        pose_noise: deviations of the errors of the poses: translation, rotation.
        noise_interval: mean and deviation of the frames between false spikes; None: no noise.
    """

    seed: int = 0
    views: int = 6
    height: int = 24
    width: int = 32
    gaussians: int = 60
    shake: tuple[float, float] = (0.35, 0.02)
    pose_noise: tuple[float, float] = (0.0, 0.0)
    noise_interval: tuple[float, float] | None = NOISE_INTERVAL


@dataclass(frozen=True, kw_only=True)
class MadeView:
    """A view in memory."""

    stream: npt.NDArray[np.uint8]
    images: npt.NDArray[np.float32]

    def spikes(self) -> npt.NDArray[np.uint8]:
        """``[T, H, W]``."""
        return self.stream

    def sharp(self) -> tuple[npt.NDArray[np.float32], Sequence[int]]:
        """True images ``[K, H, W]`` at every eighth frame of the exposure."""
        return self.images, SHARP


def make_scene(
    recipe: Recipe, progress: Callable[[int], None] = lambda view: None
) -> tuple[SpikeScene, list[MadeView]]:
    """Draw a scene, film it with shaking cameras, and record spikes.

    Args:
        recipe: how.
        progress: called with the number of each view that is done.

    Returns:
        What is known before the reconstruction, with points near the true means, and the V views.
    """
    draw = np.random.default_rng(recipe.seed)
    scene = _gaussians(draw, recipe.gaussians)
    poses = np.stack([_camera((i - (recipe.views - 1) / 2) * ANGLE) for i in range(recipe.views)])
    focal = FOCAL * recipe.width
    intrinsics = (focal, focal, recipe.width / 2, recipe.height / 2)
    views = []
    for i, pose in enumerate(poses):
        moved = draw.normal(size=6) * np.repeat(recipe.shake, 3) * [1, 1, 0.5, 1, 1, 1]
        path = [pose @ rigid(moved * (2 * (k - FIRST) / (LAST - FIRST) - 1)) for k in range(FRAMES)]
        images = [render(scene, p, intrinsics, recipe.height, recipe.width) for p in path]
        frames = np.stack(images).clip(0, 1).astype(np.float32)
        spikes = simulate_physical(frames, draw)
        if recipe.noise_interval is not None:
            spikes = add_noise(spikes, noise_positions(spikes.size, draw, recipe.noise_interval))
        views.append(MadeView(stream=spikes, images=frames[list(SHARP)]))
        progress(i)
    wrong = draw.normal(size=(recipe.views, 6)) * np.repeat(recipe.pose_noise, 3)
    points = scene.means + 0.05 * draw.normal(size=scene.means.shape)
    known = SpikeScene(
        camera_to_world=torch.from_numpy(
            np.stack([p @ rigid(x) for p, x in zip(poses, wrong, strict=True)])
        ).float(),
        intrinsics=intrinsics,
        height=recipe.height,
        width=recipe.width,
        points=torch.from_numpy(points).float(),
        colors=torch.full((len(points), 3), 0.5),
        names=tuple(f"view_{i:02d}" for i in range(recipe.views)),
        rate=GAIN / THRESHOLD,
    )
    return known, views


def rigid(xi: Any) -> Array:
    """Exponential of a tangent vector of SE(3), translation first, ``[6]`` -> ``[4, 4]``."""
    (a, b, c), (x, y, z) = xi[:3], xi[3:]
    generator = torch.tensor([[0, -z, y, a], [z, 0, -x, b], [-y, x, 0, c], [0, 0, 0, 0]], dtype=torch.float64)
    motion: Array = torch.linalg.matrix_exp(generator).numpy()
    return motion


def _gaussians(draw: np.random.Generator, count: int) -> Gaussians:
    return Gaussians(
        means=draw.normal(size=(count, 3)) * [1.0, 0.7, 0.6],
        scales=draw.uniform(0.06, 0.22, (count, 3)),
        quaternions=draw.normal(size=(count, 4)),
        opacities=np.full(count, _sigmoid(np.array(2.5))),
        grey=_sigmoid(2 * draw.normal(size=count)),
    )


def _camera(angle: float) -> Array:
    """A pose on a circle around the vertical axis that looks at the origin along its own -z."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s, DISTANCE * s], [0, 1, 0, 0], [-s, 0, c, DISTANCE * c], [0, 0, 0, 1]])


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))
