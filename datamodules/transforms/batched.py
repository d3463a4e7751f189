"""Crops, flips and Cutout of whole batches, with a draw of its own for every sample.

torchvision's batched transforms draw one set of parameters for the whole batch, so these are written out.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from datamodules.loading.random import Keys, integers, uniforms
from datamodules.transforms import draws


def shifted_crops(images: Tensor, keys: Keys, padding: int, flip: float) -> Tensor:
    """Pad with zeros, crop at a random place, flip some; one draw per sample.

    Args:
        images: integers ``[N, C, H, W]``.
        keys: random keys ``[N]``.
        padding: pixels on each side.
        flip: probability of a horizontal flip.

    Returns:
        the same type and shape.
    """
    n, chans, height, width = images.shape
    source = images.numpy()
    if padding:
        padded = np.zeros((n, chans, height + 2 * padding, width + 2 * padding), dtype=source.dtype)
        padded[:, :, padding:-padding, padding:-padding] = source
        tops = integers(keys, draws.CROP_Y, 2 * padding + 1)
        lefts = integers(keys, draws.CROP_X, 2 * padding + 1)
    else:
        padded, tops, lefts = source, np.zeros(n, np.int64), np.zeros(n, np.int64)
    flipped = uniforms(keys, draws.FLIP) < flip
    out = np.empty_like(source)
    for i, (top, left, mirror) in enumerate(
        zip(tops.tolist(), lefts.tolist(), flipped.tolist(), strict=True)
    ):
        window = padded[i, :, top : top + height, left : left + width]
        out[i] = window[:, :, ::-1] if mirror else window
    return torch.from_numpy(out)


def cut_out(images: Tensor, keys: Keys, side: int) -> Tensor:
    """Set one square of every image to 0, the mean after normalising; in place.

    The centre lies anywhere in the image and the square is clipped at the border, as in the
    code of Cutout (arXiv 1708.04552).

    Args:
        images: float ``[N, C, H, W]``.
        keys: random keys ``[N]``.
        side: side of the square in pixels.
    """
    height, width = images.shape[-2:]

    def covered(slot: int, extent: int) -> Tensor:
        centre = torch.from_numpy(integers(keys, slot, extent))[:, None]
        place = torch.arange(extent)
        # side // 2 on either side of the centre, the upper end open, like the original
        return (place >= centre - side // 2) & (place < centre + side // 2)

    square = covered(draws.CUT_Y, height)[:, None, :, None] & covered(draws.CUT_X, width)[:, None, None, :]
    return images.masked_fill_(square, 0.0)
