"""Discs, squares and triangles on a noisy ground, and what every pixel belongs to.

Axes: N samples, H W pixels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from datamodules.loading.datasets import Arrays
from datamodules.made_up.base import MadeUpDataModule

MOST = 3  # shapes in an image
NOISE = 12.0  # grey values of 255


class ShapesDataModule(MadeUpDataModule):
    """Segmentation: made-up shapes of any brightness, which may hide each other.

    Batches are (x, y): x ``[B, 1, H, W]``, y uint8 ``[B, H, W]``: 0 ground, 1 disc, 2 square, 3 triangle.

    Args:
        image_size: H and W.
        kwargs: see `MadeUpDataModule`.
    """

    title = "made-up shapes"
    task: ClassVar[str] = "segmentation"
    num_classes = 4
    class_names = ("ground", "disc", "square", "triangle")

    def __init__(self, *, image_size: int = 32, **kwargs: Any) -> None:
        super().__init__(image_size=image_size, **kwargs)
        self.set_statistics((0.479,), (0.166,))

    @property
    @override
    def native_size(self) -> tuple[int, int]:
        return self.image_size or (32, 32)

    @override
    def draw(self, part: str, count: int, random: np.random.Generator) -> Arrays:
        made = [_sample(random, *self.native_size) for _ in range(count)]
        images, masks = (np.stack(parts) for parts in zip(*made, strict=True))
        return Arrays(images[:, None], masks)


def _sample(
    random: np.random.Generator, height: int, width: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """An image and its mask, ``[H, W]`` each."""
    y, x = np.mgrid[:height, :width] + 0.5
    ground = random.uniform(60, 195)
    slope = random.uniform(-30, 30, 2)
    image = ground + slope[0] * (y / height - 0.5) + slope[1] * (x / width - 0.5)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(int(random.integers(1, MOST + 1))):
        kind, size = int(random.integers(1, 4)), random.uniform(0.14, 0.24) * min(height, width)
        top, left = random.uniform(size, height - size), random.uniform(size, width - size)
        down, right = y - top, x - left
        inside = (
            down**2 + right**2 < size**2,
            np.maximum(np.abs(down), np.abs(right)) < 0.85 * size,
            (down < 0.8 * size) & (np.abs(right) < (down + size) / 1.8),
        )[kind - 1]
        far = random.uniform(40, 90) * random.choice((-1, 1))
        shade = ground + far if 20 < ground + far < 235 else ground - far
        image, mask = np.where(inside, shade, image), np.where(inside, np.uint8(kind), mask)
    image = image + NOISE * random.standard_normal(image.shape)
    return image.clip(0, 255).astype(np.uint8), mask
