"""Image files decoded into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from datamodules.loading.errors import DataError


def open_image(path: str | Path, in_chans: int = 3) -> Image.Image:
    """Read an image whole, as grey (`in_chans` 1) or RGB; an error names the file."""
    try:
        with Image.open(path) as image:
            return image.convert("L" if in_chans == 1 else "RGB")
    except FileNotFoundError:
        raise DataError(f"no such image: {path}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the image {path}: {error}") from error


def image_array(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return an image as uint8 ``[C, H, W]``."""
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
