"""Made-up cities: a dark ground with bright buildings, of which some are kept, built or demolished.

Axes: N samples, H = W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Images = npt.NDArray[np.float32]

GROUND = np.array([-0.62, -0.55, -0.62], dtype=np.float32)  # green is a little brighter
NOISE = 0.08
BUILDINGS, SMALLEST, LARGEST = 5, 3, 5
BRIGHTNESS = (0.55, 0.8)
TRIES = 20  # places that are tried for each building


class Pairs(NamedTuple):
    """Images before and after ``[N, 3, H, W]`` in [-1, 1], and change maps ``[N, 1, H, W]`` of -1 and 1."""

    before: Images
    change: Images
    after: Images


def make_cities(count: int, seed: int = 0, side: int = 16) -> Pairs:
    """Draw samples; each depends on (seed, its number) alone.

    Every building is kept, built or demolished with equal chance; the map marks the last two.

    Args:
        count: N.
        seed: of all samples.
        side: H and W.
    """
    made = [_city(np.random.default_rng([seed, number]), side) for number in range(count)]
    return Pairs(*(np.stack(images) for images in zip(*made, strict=True)))


def _city(draw: np.random.Generator, side: int) -> tuple[Images, Images, Images]:
    ground = GROUND[:, None, None] + NOISE * draw.normal(size=(3, side, side)).astype(np.float32)
    before, after, change = ground.copy(), ground.copy(), np.full((1, side, side), -1, dtype=np.float32)
    taken: list[tuple[int, int, int, int]] = []
    for _ in range(int(draw.integers(1, BUILDINGS + 1))):
        place = _place(draw, side, taken)
        if place is None:
            continue
        taken.append(place)
        top, left, height, width = place
        area = (slice(None), slice(top, top + height), slice(left, left + width))
        colour = draw.uniform(*BRIGHTNESS, 3).astype(np.float32)[:, None, None]
        fate = int(draw.integers(3))  # kept, built, demolished
        if fate != 1:
            before[area] = colour
        if fate != 2:
            after[area] = colour
        if fate:
            change[area] = 1
    return before.clip(-1, 1), change, after.clip(-1, 1)


def _place(
    draw: np.random.Generator, side: int, taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int, int, int] | None:
    """Top, left, height and width of a rectangle that touches no other; None if none was found."""
    for _ in range(TRIES):
        height, width = (int(n) for n in draw.integers(SMALLEST, LARGEST + 1, 2))
        top, left = int(draw.integers(side - height + 1)), int(draw.integers(side - width + 1))
        apart = (top > y + h or y > top + height or left > x + w or x > left + width for y, x, h, w in taken)
        if all(apart):
            return top, left, height, width
    return None
