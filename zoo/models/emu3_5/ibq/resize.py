"""Sizes that images are brought to before they become codes."""

from __future__ import annotations

import math

PIXELS = 16  # a code's side


def smart_size(width: int, height: int, area: int, multiple: int = PIXELS) -> tuple[int, int]:
    """Width and height near ``area`` pixels, with nearly the same ratio, both multiples of ``multiple``.

    Emu3.5 (arXiv 2510.26583) takes 512^2, 720^2 or 1024^2 pixels, and resizes bicubically.

    >>> smart_size(640, 480, 512 * 512)
    (592, 448)

    Raises:
        ValueError: a size below 1.
    """
    if min(width, height, area) < 1:
        raise ValueError(f"width, height and area must be at least 1, got {width}, {height} and {area}")
    ratio = width / height
    new_height = math.floor(math.sqrt(area / ratio))
    new_width = math.floor(new_height * ratio)
    w, h = ((side + multiple // 2) // multiple * multiple for side in (new_width, new_height))
    return w, h
