"""Frames of a stream are those of the whole recording, however its events come in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.event_files import events

from datamodules import DataError
from datamodules.events.frames import to_frames
from datamodules.events.live import Tally, extent_of, frames_by_count, frames_by_time
from datamodules.events.readers import Events


def blocks_of(ev, size):
    for low in range(0, len(ev.t), size):
        yield Events(*(column[low : low + size] for column in ev))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 200),
    st.integers(1, 12),
    st.integers(1, 60),
    st.integers(0, 99),
    st.sampled_from([90, 300_000]),
)
def test_the_frames_of_a_recording(count, T, block, seed, length):
    ev = events(count, 8, seed, start=7, length=length)
    extent = extent_of(blocks_of(ev, block))
    assert (extent.first, extent.last, extent.events) == (ev.t[0], ev.t[-1], count)
    long = max(1, (extent.last - extent.first) // T)
    by_time = list(frames_by_time(blocks_of(ev, block), (8, 8), long, start=extent.first, most=T))
    assert np.array_equal(np.stack([f.counts for f in by_time]), to_frames(ev, T, (8, 8), "time"))
    by_count = list(frames_by_count(blocks_of(ev, block), (8, 8), max(1, count // T), most=T))
    whole = to_frames(ev, T, (8, 8), "count")
    got = np.zeros_like(whole)  # with fewer events than T the last frames do not come
    got[: len(by_count)] = [f.counts for f in by_count]
    assert np.array_equal(got, whole)
    for frames in (by_time, by_count):
        assert sum(f.events for f in frames) == count == sum(f.counts.sum() for f in frames)


def test_time_goes_on_where_nothing_happens():
    ev = Events(*(np.array(c) for c in ([1, 2, 3], [0, 0, 0], [1, 1, 0], [100, 250, 1050])))
    frames = list(frames_by_time(iter([ev]), (4, 4), 100))
    assert [f.events for f in frames] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert [f.end for f in frames] == list(range(100, 1100, 100))
    assert [f.end for f in frames_by_count(iter([ev]), (4, 4), 2)] == [150, 950]


def test_late_events_are_counted_and_told():
    ev = Events(*(np.array(c) for c in ([1, 2, 3], [0, 0, 0], [1, 1, 0], [0, 250, 90])))
    tally = Tally()
    frames = list(frames_by_time(blocks_of(ev, 1), (4, 4), 100, tally=tally))
    assert [f.events for f in frames] == [1, 0, 2]
    assert tally.late == 1


def test_what_is_refused():
    ev = Events(*(np.array(c) for c in ([1, 2], [0, 0], [1, 1], [0, 4_000_000_000])))
    with pytest.raises(DataError, match=r"4,000,000,000 microseconds comes more than an hour after"):
        list(frames_by_time(iter([ev]), (4, 4), 1000))
    with pytest.raises(DataError, match="outside of a sensor of 2x2"):
        list(frames_by_count(iter([ev]), (2, 2), 1))
    with pytest.raises(DataError, match="without events"):
        extent_of(iter([]))
