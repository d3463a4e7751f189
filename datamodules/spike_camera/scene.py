"""A scene seen by a spike camera: its cameras, its sparse points, and one stream a view.

Axes: V views, T frames, H W pixels, P points, K frames whose true image is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from typing_extensions import override

from datamodules.loading.datasets import BatchDataset, Key, split_keys
from datamodules.loading.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from torch import Tensor

FRAMES = 177  # of a view; the exposure is 40 to 136
MIDDLE = 88
_TOLERANCE = 1e-3  # of rotations; files hold them with six digits or so


@dataclass(frozen=True, kw_only=True)
class SpikeScene:
    """What is known about a scene before it is reconstructed.

    Attributes:
        camera_to_world: poses as they were estimated, ``[V, 4, 4]`` float32; cameras look along -z, y is up.
        intrinsics: focal lengths and centre ``(fx, fy, cx, cy)`` in pixels.
        height: H.
        width: W.
        points: sparse points ``[P, 3]`` float32.
        colors: of the points, ``[P, 3]`` float32 in [0, 1].
        names: of the views.
        rate: spikes a frame of intensity 1; images in spikes a frame are divided by it.
        frames: T of each stream.
        scale: how much larger the scene is here than in its files.
        offset: where the origin lies in the files: ``files = here / scale + offset``.
    """

    camera_to_world: Tensor
    intrinsics: tuple[float, float, float, float]
    height: int
    width: int
    points: Tensor
    colors: Tensor
    names: tuple[str, ...]
    rate: float
    frames: int = FRAMES
    scale: float = 1.0
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        check_poses(self.camera_to_world, self.names)
        if len(self.points) == 0:
            raise DataError("the scene has no points to start from")
        if not bool(self.points.isfinite().all()):
            raise DataError("the scene has points that are not finite")


class View(Protocol):
    """One view: its stream and the true images that are known of it."""

    def spikes(self) -> npt.NDArray[np.uint8]:
        """``[T, H, W]``."""
        ...

    def sharp(self) -> tuple[npt.NDArray[np.float32], Sequence[int]]:
        """Grey images in [0, 1] ``[K, H, W]``, and their frames."""
        ...


class SpikeViews(BatchDataset):
    """One sample a view; batches are dictionaries.

    ``spikes`` uint8 ``[N, T, H, W]``, ``view`` int64 ``[N]``, ``camera_to_world`` ``[N, 4, 4]``, ``sharp``
    ``[N, K, H, W]`` in [0, 1] and ``sharp_frames`` int64 ``[N, K]``.

    Args:
        scene: what belongs to all views.
        views: the V views.
    """

    transform = None

    def __init__(self, scene: SpikeScene, views: Sequence[View]) -> None:
        self.scene, self.views = scene, list(views)

    @override
    def __getitems__(self, keys: Sequence[Key]) -> Any:
        indices, _ = split_keys(keys)
        chosen = [self.views[i] for i in indices]
        sharp = [view.sharp() for view in chosen]
        number = torch.from_numpy(indices.copy())
        return {
            "spikes": torch.from_numpy(np.stack([view.spikes() for view in chosen])),
            "view": number,
            "camera_to_world": self.scene.camera_to_world[number],
            "sharp": torch.from_numpy(np.stack([images for images, _ in sharp])),
            "sharp_frames": torch.tensor([list(frames) for _, frames in sharp], dtype=torch.int64),
        }

    @override
    def __getitem__(self, key: Key) -> Any:
        return {name: values[0] for name, values in self.__getitems__([key]).items()}

    @override
    def __len__(self) -> int:
        return len(self.views)


def check_poses(poses: Tensor, names: Sequence[str]) -> None:
    """Refuse poses that cannot be those of cameras.

    Args:
        poses: camera to world, ``[V, 4, 4]``.
        names: of the views.

    Raises:
        DataError: fewer than two views, or one whose pose is no rotation and translation.
    """
    if poses.dim() != 3 or poses.shape[1:] != (4, 4) or len(poses) != len(names):
        raise DataError(f"expected a pose [4, 4] for each of {len(names)} views, got {tuple(poses.shape)}")
    if len(poses) < 2:
        raise DataError(f"a scene needs at least 2 views, got {len(poses)}: one image has no depth")
    for pose, name in zip(poses.double(), names, strict=True):
        rotation = pose[:3, :3]
        if not bool(pose.isfinite().all()):
            raise DataError(f"the pose of {name} is not finite")
        off = float((rotation @ rotation.T - torch.eye(3, dtype=torch.float64)).abs().max())
        determinant = float(torch.linalg.det(rotation))
        if off > _TOLERANCE or determinant < 0:
            raise DataError(
                f"the pose of {name} is no rotation: R R^T differs from 1 by {off:.3g},"
                f" det R = {determinant:.3g}; see transform_matrix of that frame"
            )
        if float((pose[3] - pose.new_tensor([0.0, 0.0, 0.0, 1.0])).abs().max()) > _TOLERANCE:
            raise DataError(f"the last row of the pose of {name} is {pose[3].tolist()}, not 0, 0, 0, 1")
