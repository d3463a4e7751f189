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


def fitted(
    image: Image.Image, in_chans: int, size: tuple[int, ...] | None, interpolation: Interpolation
) -> Tensor:
    """An image as uint8 ``[C, H, W]``, resized if it has another size.

    Args:
        image: of any mode, see `eight_bit`.
        in_chans: C, 1 or 3.
        size: (height, width); None keeps the image's.
        interpolation: of resizing.
    """
    image = eight_bit(image, in_chans)
    if size is not None and image.size != size[::-1]:
        image = image.resize((size[1], size[0]), RESAMPLING[interpolation])
    return torch.from_numpy(image_array(image).copy())


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
        self.interpolation = interpolation
        self.normalise = TensorPipeline(mean=mean, std=std)

    def __call__(self, image: Image.Image, key: int | None = None) -> Tensor:
        """``[C, H, W]``, resized if it has another size, and normalised."""
        return self.normalise(fitted(image, len(self.normalise.mean), self.size, self.interpolation))
