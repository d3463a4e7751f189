"""Dropped files: opened as one of a few formats, by content, and only if their pixels fit into memory."""

from __future__ import annotations

import base64
import binascii
import io
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from typing import IO

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow knows more, some of which start programs
NAMES = "PNG, JPEG, WebP, GIF, BMP and TIFF"
MOST_PIXELS = 50_000_000  # 200 MB in memory
_one_at_a_time = threading.Lock()


class UnreadableImageError(ValueError):
    """A dropped file that is not shown; the message says why."""


def open_dropped(payload: Any) -> Image.Image | None:
    """The image of what gradio hands over: a file of its own, or a data URL.

    Raises:
        UnreadableImageError: if it is none of the formats, damaged, or too large.
    """
    if payload is None:
        return None
    if payload.url and payload.url.startswith("data:"):
        try:
            return open_image(io.BytesIO(base64.b64decode(payload.url.partition(",")[2])))
        except binascii.Error:
            raise UnreadableImageError(f"This file is no image that can be opened. {NAMES} can.") from None
    return open_image(Path(payload.path))


def open_image(source: Path | IO[bytes]) -> Image.Image:
    """A decoded image; its size is looked at before anything is decoded.

    Raises:
        UnreadableImageError: if it is none of the formats, damaged, or too large.
    """
    with _one_at_a_time:
        try:
            # given a name, Pillow maps plain TIFF files into memory, and turned ones come out scrambled
            with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
                _check_size(*_webp_size(file))
                with Image.open(file, formats=FORMATS) as image:
                    _check_size(*image.size)
                    image.load()
                    return image.copy() if image.format == "GIF" else image
        except UnidentifiedImageError:
            raise UnreadableImageError(f"This file is no image that can be opened. {NAMES} can.") from None
        except Image.DecompressionBombError as error:
            raise UnreadableImageError(f"This image is too large: {error}.") from None
        except UnreadableImageError:
            raise
        except Exception as error:  # Pillow's plugins raise many kinds
            raise UnreadableImageError(f"This image is damaged: {error}.") from None


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise UnreadableImageError(
            f"This image is too large: {width:,} x {height:,} pixels; at most {MOST_PIXELS:,} are opened."
        )


def _webp_size(file: IO[bytes]) -> tuple[int, int]:
    """Width and height in the header of a WebP file, which Pillow decodes as it opens it; else zeros."""
    head = file.read(30)
    file.seek(0)
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP" or len(head) < 30:
        return 0, 0
    kind, data = head[12:16], head[20:]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF
