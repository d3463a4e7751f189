"""Images of any size brought to the form a small-image network was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from datamodules.loading.decode import eight_bit, image_array
from datamodules.transforms.policies import Interpolation
from datamodules.transforms.tensor import TensorPipeline

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class FitImage:
    """Resize one decoded image to a size and normalise it; picklable for workers.

    Args:
        size: (height, width).
        mean: channel means in 0..1.
        std: channel standard deviations.
        interpolation: of resizing.
    """

    def __init__(
        self,
        size: tuple[int, ...],
        mean: Sequence[float],
        std: Sequence[float],
        interpolation: Interpolation,
    ) -> None:
        self.size = size
        self.resampling = RESAMPLING[interpolation]
        self.normalise = TensorPipeline(mean=mean, std=std)

    def __call__(self, image: Image.Image, key: int | None = None) -> Tensor:
        """``[C, H, W]``, resized if it has another size, and normalised."""
        height, width = self.size
        image = eight_bit(image, len(self.normalise.mean))
        if image.size != (width, height):
            image = image.resize((width, height), self.resampling)
        return self.normalise(torch.from_numpy(image_array(image).copy()))
