"""The augmentation of UP-Diff (arXiv 2407.11578): image before, image after and change map move alike.

Axes: C H W channels and pixels, S pixels a side of the crop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 1.25  # the image covers at most so much more than the crop


def augmented(images: Tensor, size: int, key: int) -> Tensor:
    """Scale by the nearest pixels, crop, and mirror, flip, do both or none.

    Args:
        images: ``[C, H, W]``, the images and the map one above the other.
        size: S.
        key: all that is random depends on it.

    Returns:
        ``[C, S, S]``.
    """
    draw = np.random.default_rng(key)
    height, width = images.shape[-2:]
    factor = size / min(height, width) * draw.uniform(1.0, LARGEST)
    scaled = tuple(max(size, round(n * factor)) for n in (height, width))
    resized = F.interpolate(images[None], scaled, mode="nearest")[0]
    top, left = (int(draw.integers(n - size + 1)) for n in scaled)
    cropped = resized[:, top : top + size, left : left + size]
    kind = int(draw.integers(4))
    axes = [axis for bit, axis in ((1, 2), (2, 1)) if kind & bit]
    return cropped.flip(axes) if axes else cropped


def centred(images: Tensor, size: int) -> Tensor:
    """The middle of the images, without resizing: ``[C, H, W]`` -> ``[C, S, S]``."""
    height, width = images.shape[-2:]
    top, left = (height - size) // 2, (width - size) // 2
    return images[:, top : top + size, left : left + size]


def to_range(image: np.ndarray) -> Tensor:
    """Bytes ``[H, W, C]`` -> ``[C, H, W]`` in [-1, 1]."""
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1
