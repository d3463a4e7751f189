"""Images of every kind as 8 bits a channel: files, PIL images and arrays.

Values keep their meaning: what is a quarter of full scale in the source is a quarter of 255 in the result.
Pillow's own ``convert`` clips deeper images at 255 instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from datamodules.loading.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

DEEP = 65535  # full scale of 16 bits
ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
IN_THE_WAY = (OSError, SyntaxError, ValueError, EOFError, TypeError, Image.DecompressionBombError)


def open_image(path: str | Path, in_chans: int = 3) -> Image.Image:
    """Read an image whole, upright, as grey (`in_chans` 1) or RGB; an error names the file.

    Raises:
        DataError: no such file, a damaged one, or values without a known scale.
    """
    try:
        # given a name, Pillow maps plain TIFF files into memory, and turned ones come out scrambled
        with Path(path).open("rb") as file, Image.open(file) as image:
            found = eight_bit(image, in_chans)
            return found.copy() if found is image else found
    except FileNotFoundError:
        raise DataError(f"no such image: {path}") from None
    except UnidentifiedImageError:
        raise DataError(f"cannot read the image {path}: it is of no format that Pillow knows") from None
    except IN_THE_WAY as error:
        raise DataError(f"cannot read the image {path}: {error}") from error


def eight_bit(image: Image.Image, in_chans: int = 3) -> Image.Image:
    """Return an image as grey (`in_chans` 1, mode ``L``) or RGB, turned as its EXIF says.

    What is transparent becomes white, as a page shows it. Modes of 16 bits have full scale 65535. The two
    modes without a scale are read by what they hold: floats (``F``) up to 1 have full scale 1, integers of
    32 bits (``I``) and floats up to 255 have 255, those up to 65535 have 65535.

    Args:
        image: of any mode.
        in_chans: 1 or 3.

    Raises:
        ValueError: values without a known scale: negative, above 65535 or not finite.
    """
    source = image.format  # which a turned copy has not
    image.load()  # in which the mode may change
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # else the library would make a copy
        image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(_scaled(np.asarray(image), _full_scale(image, source)))
    elif image.mode in ALPHA or "transparency" in image.info:
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    mode = "L" if in_chans == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _full_scale(image: Image.Image, source: str | None) -> int:
    if image.mode.startswith("I;16") or source in ("PNG", "PPM"):  # Pillow stretches PPM to 16 bits
        return DEEP
    values = np.asarray(image)
    least, most = values.min(), values.max()
    if not (np.isfinite(least) and np.isfinite(most)) or least < 0 or most > DEEP:
        raise ValueError(
            f"its values go from {least:g} to {most:g}; known are 0 to 1 (floats), 255 and {DEEP}, so scale"
            " them to one of these"
        )
    if image.mode == "F" and most <= 1:
        return 1
    return 255 if most <= 255 else DEEP


def _scaled(values: npt.NDArray[Any], full_scale: int) -> npt.NDArray[np.uint8]:
    return np.rint(values * (255.0 / full_scale)).astype(np.uint8)


def image_array(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return an image as uint8 ``[C, H, W]``."""
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def as_bytes(images: Tensor) -> Tensor:
    """Return images as uint8 of full scale 255.

    Args:
        images: uint8; uint16 of full scale 65535; bool; or floats of 0 to 1; any shape.

    Raises:
        ValueError: another type, or floats outside of 0 to 1.
    """
    if images.dtype == torch.uint8:
        return images
    if images.dtype == torch.bool:
        return images.to(torch.uint8) * 255
    if images.dtype == torch.uint16:
        return (images.to(torch.float32) * (255.0 / DEEP)).round_().to(torch.uint8)
    if not images.is_floating_point():
        raise ValueError(f"expected images as uint8, uint16, or floats of 0 to 1, got {images.dtype}")
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"expected floats of 0 to 1, got {float(images.min()):g} to {float(images.max()):g}; scale"
            " them, or give uint8"
        )
    return (images * 255.0).round_().to(torch.uint8)
