"""Frames of a recording one after another, as its events come in: what a stream of events is made of.

Axes: N events, H W sensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from datamodules.events.count import Counts, count_events
from datamodules.events.readers.record import Blocks, Events, Size, inside
from datamodules.loading.errors import DataError

LONGEST_SILENCE = 3_600_000_000  # microseconds without an event; more is a damaged time


@dataclass(frozen=True)
class Extent:
    """First and last microsecond of a recording, and how many events it has."""

    first: int
    last: int
    events: int


@dataclass
class Frame:
    """Counts of the events of one frame.

    Attributes:
        counts: int64 ``[2, H, W]``, darker first.
        end: microsecond of its end, from the first event on.
        events: how many there are.
    """

    counts: npt.NDArray[np.int64]
    end: int
    events: int


@dataclass
class Tally:
    """What a source noticed on its way.

    Attributes:
        late: events that belong to a frame which had been handed out; they are counted in the running one.
    """

    late: int = 0


def extent_of(blocks: Blocks) -> Extent:
    """Pass over a recording once, to know how long it is.

    Raises:
        DataError: it has no events.
    """
    first, last, count = None, 0, 0
    for block in blocks:
        if len(block.t):
            low, high = int(block.t.min()), int(block.t.max())
            first = low if first is None else min(first, low)
            last = max(last, high)
            count += len(block.t)
    if first is None:
        raise DataError("a recording without events")
    return Extent(first, last, count)


def frames_by_time(
    blocks: Iterable[Events],
    size: Size,
    length: int,
    *,
    start: int | None = None,
    most: int | None = None,
    tally: Tally | None = None,
) -> Iterator[Frame]:
    """One frame every `length` microseconds, also where nothing happens.

    With ``length = (last - first) // T`` and ``most = T`` these are the frames of `to_frames` by time.

    Args:
        blocks: events, some at a time, in order but for a few; see `event_blocks`.
        size: H and W of the sensor.
        length: of a frame in microseconds.
        start: where the first frame begins; missing: at the first event.
        most: the last frame, from which on all events belong to it.
        tally: where late events are counted.

    Raises:
        DataError: an event outside of the sensor, or an hour without events, which a damaged time looks like.
    """
    tally = Tally() if tally is None else tally
    now, counts, count = 0, _empty(size), 0
    for block in blocks:
        if not len(block.t):
            continue
        inside(block, size, "the recording")
        if start is None:
            start = int(block.t.min())
        frame = (block.t - start) // length
        if most is not None:
            frame = np.minimum(frame, most - 1)
        running = np.maximum.accumulate(np.maximum(frame, now))
        tally.late += int((frame < running).sum())
        steps = np.diff(running, prepend=now)
        if int(steps.max()) * length > LONGEST_SILENCE:
            jump = int(steps.argmax())
            raise DataError(
                f"an event at {int(block.t[jump]):,} microseconds comes more than an hour after the one"
                " before it: a damaged time, or two recordings in one file"
            )
        edges = np.flatnonzero(steps[1:]) + 1
        for low, high in zip([0, *edges.tolist()], [*edges.tolist(), len(running)], strict=True):
            while now < running[low]:
                yield Frame(counts, (now + 1) * length, count)
                now, counts, count = now + 1, _empty(size), 0
            counts += _counted(block, low, high, size)
            count += high - low
    if start is not None:
        yield Frame(counts, (now + 1) * length, count)
        for k in range(now + 1, most or 0):
            yield Frame(_empty(size), (k + 1) * length, 0)


def frames_by_count(
    blocks: Iterable[Events], size: Size, number: int, *, most: int | None = None
) -> Iterator[Frame]:
    """One frame for every `number` events; the last one may hold fewer.

    With ``number = N // T`` and ``most = T`` these are the frames of `to_frames` by count.

    Args:
        blocks: events, some at a time; see `event_blocks`.
        size: H and W of the sensor.
        number: events of a frame.
        most: the last frame, which takes all the others.

    Raises:
        DataError: an event outside of the sensor.
    """
    start, end, made = None, 0, 0
    counts, count = _empty(size), 0
    for block in blocks:
        inside(block, size, "the recording")
        low = 0
        while low < len(block.t):
            if count == number and (most is None or made < most - 1):
                yield Frame(counts, end, count)
                made, counts, count = made + 1, _empty(size), 0
            last = most is not None and made >= most - 1
            high = len(block.t) if last else min(len(block.t), low + number - count)
            counts += _counted(block, low, high, size)
            count += high - low
            start = int(block.t[0]) if start is None else start
            end = max(end, int(block.t[low:high].max()) - start)
            low = high
    if count:
        yield Frame(counts, end, count)


def _empty(size: Size) -> npt.NDArray[np.int64]:
    return np.zeros((2, *size), np.int64)


def _counted(block: Events, low: int, high: int, size: Size) -> Counts:
    part = Events(*(column[low:high] for column in block))
    counts: Counts = count_events(part, np.array([0, high - low]), size)[0]
    return counts
