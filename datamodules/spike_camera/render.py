"""Images of a few Gaussians, by the plain formula: what the made-up scene shows to its spike camera.

Data modules import no networks, so this is an own renderer; a test compares it with that of the zoo. It takes
pixels x Gaussians of memory and has no gradients.

Axes: N cameras, G Gaussians, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

BLUR = 0.3  # pixels^2, added to every Gaussian in the image
OPAQUE = 0.99
FLIP = np.diag([1.0, -1.0, -1.0])  # from cameras that look along -z to those that look along z, y down


@dataclass(frozen=True, kw_only=True)
class Gaussians:
    """Grey Gaussians: means, scales, quaternions (w, x, y, z), opacities and intensities, one row each."""

    means: Array
    scales: Array
    quaternions: Array
    opacities: Array
    grey: Array


def rotation(quaternions: Array) -> Array:
    """Quaternions ``[..., 4]`` (w, x, y, z) of any length -> ``[..., 3, 3]``."""
    w, x, y, z = np.moveaxis(quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def render(
    scene: Gaussians,
    camera_to_world: Array,
    intrinsics: tuple[float, float, float, float],
    height: int,
    width: int,
) -> Array:
    """Grey images over a black background.

    Args:
        scene: the Gaussians.
        camera_to_world: one pose, ``[4, 4]``; the camera looks along -z, y is up.
        intrinsics: ``(fx, fy, cx, cy)`` in pixels.
        height: H.
        width: W.

    Returns:
        ``[H, W]`` in [0, 1].
    """
    fx, fy, cx, cy = intrinsics
    world_to_camera = FLIP @ camera_to_world[:3, :3].T
    points = (scene.means - camera_to_world[:3, 3]) @ world_to_camera.T
    order = np.argsort(points[:, 2], kind="stable")
    order = order[points[order, 2] > 0.01]
    x, y, z = points[order].T
    spread = world_to_camera @ rotation(scene.quaternions[order]) * scene.scales[order, None, :]
    zero = np.zeros_like(z)
    jacobian = np.stack(
        [np.stack([fx / z, zero, -fx * x / z**2], -1), np.stack([zero, fy / z, -fy * y / z**2], -1)], -2
    )
    flat = jacobian @ spread
    inverse = np.linalg.inv(flat @ flat.swapaxes(-1, -2) + BLUR * np.eye(2))
    columns = np.arange(width) + 0.5 - (fx * x / z + cx)[:, None]
    rows = np.arange(height) + 0.5 - (fy * y / z + cy)[:, None]
    power = (
        inverse[:, 0, 0, None, None] * columns[:, None, :] ** 2
        + inverse[:, 1, 1, None, None] * rows[:, :, None] ** 2
        + 2 * inverse[:, 0, 1, None, None] * columns[:, None, :] * rows[:, :, None]
    )
    alpha = np.minimum(OPAQUE, scene.opacities[order, None, None] * np.exp(-0.5 * power))
    through = np.cumprod(np.concatenate([np.ones_like(alpha[:1]), 1 - alpha]), 0)[:-1]
    image: Array = (scene.grey[order, None, None] * alpha * through).sum(0)
    return image
