"""Events become frames: counts by time step, polarity and pixel.

Axes: N events, T frames, H W sensor.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from datamodules.events.count import Counts, count_events
from datamodules.events.readers.record import Events
from datamodules.loading.errors import DataError

SplitBy = Literal["count", "time"]


def to_frames(events: Events, time_steps: int, size: tuple[int, int], split_by: SplitBy = "count") -> Counts:
    """Count events by frame, polarity and pixel; no event is lost.

    ``"count"`` gives every frame the same number of events, ``"time"`` the same number of microseconds; the
    last frame takes what the division leaves over, as in the field's papers.

    Args:
        events: at least one.
        time_steps: T.
        size: H and W of the sensor.
        split_by: how the recording is cut.

    Returns:
        ``[T, 2, H, W]``, darker first; uint8, or uint16 or uint32 where a count needs it.

    Raises:
        DataError: there are no events, or one is outside of the sensor.
    """
    count = len(events.t)
    if not count:
        raise DataError("a recording without events")
    if split_by == "count":
        each = max(1, count // time_steps)
        edges = np.arange(0, each * (time_steps + 1), each)
        edges[min(count, time_steps) :] = count
    elif split_by == "time":
        first, last = int(events.t.min()), int(events.t.max())
        length = max(1, (last - first) // time_steps)
        if (np.diff(events.t) < 0).any():
            order = np.argsort(events.t, kind="stable")
            events = Events(*(column[order] for column in events))
        edges = np.searchsorted(events.t, first + length * np.arange(time_steps + 1))
        edges[-1] = count
    else:
        raise ValueError(f"split_by must be 'count' or 'time', got {split_by!r}")
    return count_events(events, edges, size)
