"""Events, and what must hold of them whatever file they came from.

An event says that a pixel became brighter (polarity 1) or darker (0) at a microsecond.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from datamodules.loading.errors import DataError

BLOCK = 1 << 16  # records that are read at once
CLOCK_SET_BACK = 1_000_000  # microseconds; sensors mix their rows by less
EXTRA = "pip install 'fulgurite[events]'"

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.unsignedinteger[Any]]


class Events(NamedTuple):
    """Events in the order of the file, ``[N]`` each: column, row, polarity 0 or 1, microseconds."""

    x: Ints
    y: Ints
    p: Ints
    t: Ints


Blocks = Iterator[Events]
Size = tuple[int, int]  # height and width of a sensor


def joined(blocks: Blocks) -> Events:
    """All events of a file in one piece."""
    parts = list(blocks)
    if len(parts) == 1:
        return parts[0]
    empty = np.empty(0, np.int64)
    return (
        Events(*(np.concatenate([empty, *columns]) for columns in zip(*parts, strict=True)))
        if parts
        else (Events(empty, empty, empty, empty))
    )


def words_of(path: Path, start: int, dtype: str | np.dtype[Any], what: str) -> Iterator[Words]:
    """The records of a binary file from byte `start` on, `BLOCK` of them at a time.

    Args:
        path: the file.
        start: length of its header.
        dtype: of one record.
        what: the format, for errors: "an AEDAT 2.0 file".

    Raises:
        DataError: there is none, or the last is cut off.
    """
    size = np.dtype(dtype).itemsize
    try:
        length = path.stat().st_size - start
        if length <= 0 or length % size:
            raise DataError(
                f"{path} is no {what}, or was cut off: {max(length, 0)} bytes of data are not a whole number"
                f" of {size}-byte records"
                if length > 0
                else f"{path} is no {what}: there is nothing behind its header of {start} bytes"
            )
        with path.open("rb") as file:
            file.seek(start)
            while len(raw := file.read(size * BLOCK)) >= size:
                yield np.frombuffer(raw[: len(raw) // size * size], dtype)
    except OSError as error:
        raise DataError(f"cannot read the recording {path}: {error}") from error


def first_bytes(path: Path, count: int) -> bytes:
    """The beginning of a file."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise DataError(f"cannot read the recording {path}: {error}") from error


def in_order(events: Events, what: str | Path, told: bool = False) -> Events:
    """The events sorted by time; most files are, and pass unchanged.

    Args:
        events: of one recording.
        what: the file, for messages.
        told: whether the user has been warned of such a file before.

    Raises:
        DataError: the clock was set back by more than a second, so that there is no one order.
    """
    back = np.diff(events.t)
    if not len(back) or back.min() >= 0:
        return events
    first = int(np.argmax(back < 0)) + 2  # counted from 1
    if -back.min() > CLOCK_SET_BACK:
        raise DataError(
            f"{what}: the clock goes back by {-int(back.min()):,} microseconds at event"
            f" {int(back.argmin()) + 2:,}; two recordings in one file, or a counter that overflowed:"
            " cut the file there"
        )
    if not told:
        warnings.warn(
            f"{what}: {int((back < 0).sum()):,} events are earlier than the one before them, the first of"
            f" them event {first:,}, by up to {-int(back.min()):,} microseconds; they are sorted by time",
            stacklevel=2,
        )
    order = np.argsort(events.t, kind="stable")
    return Events(*(column[order] for column in events))


def inside(events: Events, size: Size, what: str | Path = "the recording") -> None:
    """Raise an error that names an event outside of a sensor, or a polarity that is none.

    Args:
        events: of one recording.
        size: H and W.
        what: the file, for messages.
    """
    if not len(events.t):
        return
    height, width = size
    if not 0 <= events.p.min() <= events.p.max() <= 1:
        raise DataError(f"{what}: polarities are 0 and 1, not {events.p.min()} to {events.p.max()}")
    if events.x.min() >= 0 and events.x.max() < width and events.y.min() >= 0 and events.y.max() < height:
        return
    outside = (events.x < 0) | (events.y < 0) | (events.x >= width) | (events.y >= height)
    i = int(np.argmax(outside))
    raise DataError(
        f"{what}: {int(outside.sum()):,} of {len(outside):,} events lie outside of a sensor of"
        f" {height}x{width} (height x width), the first at x={events.x[i]}, y={events.y[i]}; the largest"
        f" are x={events.x.max()}, y={events.y.max()}: another sensor size, or a damaged file"
    )


def checked(what: str | Path, x: Any, y: Any, p: Any, t: Any) -> Events:
    """Events from columns of any type, as people write them.

    Polarities may be 0 and 1, -1 and 1, 1 and 2 (MATLAB) or truth values. Times that are whole numbers are
    microseconds, fractions are seconds.

    Raises:
        DataError: columns of different lengths, or values that are none of these.
    """
    columns = [np.asarray(column).reshape(-1) for column in (x, y, p, t)]
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise DataError(
            f"{what}: x, y, polarity and time have {', '.join(str(len(c)) for c in columns)} entries;"
            " they must have one each for every event"
        )
    for name, column in zip(("columns", "rows", "polarities", "times"), columns, strict=True):
        if np.issubdtype(column.dtype, np.floating) and not np.isfinite(column).all():
            raise DataError(f"{what}: some {name} are NaN or infinite")
    polarity = columns[2].astype(np.int64)
    low, high = (int(polarity.min()), int(polarity.max())) if len(polarity) else (0, 1)
    if (low, high) in ((1, 2), (2, 2)):
        polarity -= 1
    elif low < -1 or high > 1:
        raise DataError(f"{what}: polarities are 0 and 1, -1 and 1 or 1 and 2, not {low} to {high}")
    time = columns[3]
    if np.issubdtype(time.dtype, np.floating):
        time = time if (time == np.round(time)).all() else np.round(time * 1e6)
    return Events(
        columns[0].astype(np.int64),
        columns[1].astype(np.int64),
        (polarity > 0).astype(np.int64),
        time.astype(np.int64),
    )
