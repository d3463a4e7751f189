"""Events of a moving image, as an event camera would send them: no recording is needed.

A pixel remembers the logarithm of the intensity at its last event, and sends one whenever the logarithm has
moved from it by a threshold, brighter or darker (Lichtsteiner et al., 10.1109/JSSC.2007.914337); the time of
the crossing is interpolated between two frames as in ESIM (Rebecq et al., CoRL 2018). The image moves as in
N-MNIST (10.3389/fnins.2015.00437): three straight saccades along a triangle.

Axes: S frames of the film, N events, H W sensor.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from datamodules.events.readers.record import Events

Floats = npt.NDArray[np.float64]
FLOOR = 0.05  # added to the intensity, as the dark current of a pixel: black has a logarithm, too


def saccades(random: np.random.Generator, frames: int, reach: float = 4.0, jitter: float = 0.25) -> Floats:
    """Where the image is at every frame of three saccades: down right, up right, back left.

    Args:
        random: draws how far each corner lies from its place.
        frames: S, at least 4.
        reach: side of the triangle in pixels.
        jitter: standard deviation of a corner, as a part of `reach`.

    Returns:
        Offsets in pixels, down and right, ``[S, 2]``; the first is the start, the last is near it.
    """
    if frames < 4:
        raise ValueError(f"three saccades need at least 4 frames, got {frames}")
    corners = reach * np.array([[0.0, -0.5], [1.0, 0.0], [0.0, 0.5], [0.0, -0.5]])
    corners += jitter * reach * random.standard_normal((4, 2))
    at = np.linspace(0.0, 3.0, frames)
    return np.stack([np.interp(at, np.arange(4.0), corners[:, k]) for k in range(2)], axis=1)


def film(image: Floats, path: Floats, size: tuple[int, int]) -> Floats:
    """The image seen by a sensor at every place of a path, bilinear between pixels, black around.

    Args:
        image: intensities in 0..1, ``[H', W']``.
        path: offsets from the middle in pixels, down and right, ``[S, 2]``.
        size: H and W of the sensor.

    Returns:
        ``[S, H, W]``.
    """
    height, width = size
    edge = int(np.ceil(np.abs(path).max(initial=0.0))) + 1
    top, left = (height - image.shape[0]) // 2 + edge, (width - image.shape[1]) // 2 + edge
    if min(top, left) < 0:
        raise ValueError(
            f"an image of {image.shape[0]}x{image.shape[1]} does not fit a sensor of {height}x{width}"
        )
    canvas = np.zeros((height + 2 * edge + 1, width + 2 * edge + 1))
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    rows, columns = (np.arange(side) + edge for side in size)
    seen = np.empty((len(path), height, width))
    for s, (down, right) in enumerate(path):
        y, x = int(np.floor(-down)), int(np.floor(-right))
        b, a = -down - y, -right - x
        part = canvas[rows[0] + y : rows[-1] + y + 2, columns[0] + x : columns[-1] + x + 2]
        seen[s] = (1 - b) * ((1 - a) * part[:-1, :-1] + a * part[:-1, 1:]) + b * (
            (1 - a) * part[1:, :-1] + a * part[1:, 1:]
        )
    return seen


def brightness_events(
    frames: Floats, times: npt.NDArray[np.int64], positive: float = 0.3, negative: float = 0.3
) -> Events:
    """The events of a film.

    >>> import numpy as np
    >>> frames = np.array([0.0, 1.0]).reshape(2, 1, 1)  # log(1.05 / 0.05) is ten thresholds of 0.3 and a bit
    >>> events = brightness_events(frames, np.array([0, 1000]))
    >>> len(events.t), int(events.p.min())
    (10, 1)

    Args:
        frames: intensities of at least 0, ``[S, H, W]``.
        times: of the frames in microseconds, rising, ``[S]``.
        positive: threshold of the logarithm towards bright.
        negative: towards dark.

    Returns:
        Events sorted by time.

    Raises:
        ValueError: a threshold that is not positive, negative intensities, or other times than frames.
    """
    if not (positive > 0 and negative > 0):
        raise ValueError(f"thresholds must be positive, got {positive} and {negative}")
    if len(times) != len(frames) or (np.diff(times) <= 0).any():
        raise ValueError(f"{len(frames)} frames need as many rising times, got {len(times)}")
    if not frames.min(initial=0.0) >= 0:
        raise ValueError(f"intensities must be 0 or more, got {frames.min()}")
    logs = np.log(frames + FLOOR)
    width = frames.shape[2]
    memory = logs[0].reshape(-1).copy()
    parts: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]] = []
    for s in range(1, len(logs)):
        before, now = logs[s - 1].reshape(-1), logs[s].reshape(-1)
        for polarity, sign, threshold in ((1, 1.0, positive), (0, -1.0, negative)):
            count = np.maximum(0, np.floor(sign * (now - memory) / threshold + 1e-9)).astype(np.int64)
            fired = np.flatnonzero(count)
            if not len(fired):
                continue
            each = count[fired]
            pixels = np.repeat(fired, each)
            number = np.arange(len(pixels)) - np.repeat(np.cumsum(each) - each, each)  # 0, 1 .. of each pixel
            level = memory[pixels] + sign * threshold * (number + 1)
            share = np.clip((level - before[pixels]) / (now - before)[pixels], 0.0, 1.0)
            parts.append(
                (pixels, np.full_like(pixels, polarity), times[s - 1] + share * (times[s] - times[s - 1]))
            )
            memory += sign * threshold * count
    if not parts:
        empty = np.empty(0, np.int64)
        return Events(empty, empty, empty, empty)
    places, polarities, moments = (np.concatenate(column) for column in zip(*parts, strict=True))
    stamps = np.round(moments).astype(np.int64)
    order = np.argsort(stamps, kind="stable")
    return Events(places[order] % width, places[order] // width, polarities[order], stamps[order])
