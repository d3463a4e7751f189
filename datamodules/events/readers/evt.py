"""The encodings of Prophesee's ``.raw`` files: EVT 2.0, 2.1 and 3.0, decoded without a loop over words.

Source: "EVT2.0", "EVT2.1" and "EVT3.0 Format" in Prophesee's documentation (Data Encoding Formats).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from datamodules.events.readers.record import Blocks, Events, Ints, Words

_HIGH_BITS = 28  # of EVT 2, in units of 64 microseconds
_HALF_LOOP = 1 << 11  # EVT 3: a fall of the time's upper 12 bits by more is an overflow
_LANES = np.arange(32)


def _last(flags: np.ndarray) -> Ints:
    """For every position, where `flags` was last true; -1 before the first."""
    found: Ints = np.maximum.accumulate(np.where(flags, np.arange(len(flags)), -1))
    return found


def blocks_evt2(pieces: Iterable[Words]) -> Blocks:
    """Words of 32 bits: type 4, time 6, x 11, y 11; the upper 28 bits of the time in words of their own."""
    high: np.ndarray = np.empty(0, np.uint32)
    for piece in pieces:
        words = np.concatenate([high, piece])
        kind = words >> 28
        at = _last(kind == 0x8)
        cd = (kind <= 1) & (at >= 0)
        found, base = words[cd].astype(np.int64), words[at[cd]].astype(np.int64)
        time = ((base & 0x0FFFFFFF) << 6) | ((found >> 22) & 0x3F)
        yield Events((found >> 11) & 0x7FF, found & 0x7FF, found >> 28, time)
        high = words[at[-1:]] if len(at) and at[-1] >= 0 else high


def blocks_evt21(pieces: Iterable[Words]) -> Blocks:
    """Words of 64 bits: type 4, time 6, x 11, y 11, and which of the 32 pixels from x on fired."""
    high: np.ndarray = np.empty(0, np.uint64)
    for piece in pieces:
        words = np.concatenate([high, piece])
        kind = words >> np.uint64(60)
        at = _last(kind == 0x8)
        cd = (kind <= 1) & (at >= 0)
        upper, lanes = (
            (words[cd] >> np.uint64(32)).astype(np.int64),
            (words[cd] & np.uint64(0xFFFFFFFF)).astype(np.int64),
        )
        base = (words[at[cd]] >> np.uint64(32)).astype(np.int64) & 0x0FFFFFFF
        row, lane = np.nonzero((lanes[:, None] >> _LANES) & 1)
        time = (base[row] << 6) | ((upper[row] >> 22) & 0x3F)
        yield Events(((upper[row] >> 11) & 0x7FF) + lane, upper[row] & 0x7FF, upper[row] >> 28, time)
        high = words[at[-1:]] if len(at) and at[-1] >= 0 else high


ADDR_Y, ADDR_X, BASE_X, VECT_12, VECT_8, TIME_LOW, TIME_HIGH = 0x0, 0x2, 0x3, 0x4, 0x5, 0x6, 0x8


def blocks_evt3(pieces: Iterable[Words]) -> Blocks:
    """Words of 16 bits, each of which sets a row, a time or a base, or sends events.

    The row, the time (24 bits; it starts again every 16.8 s, which is counted), and the base x hold until a
    word sets them anew. Vectors of 12 or 8 pixels begin where the last one ended.
    """
    carried: np.ndarray = np.empty(0, np.uint16)  # words that say again how the last piece ended
    loops = 0
    for piece in pieces:
        words = np.concatenate([carried, piece])
        kind, load = words >> 12, (words & 0xFFF).astype(np.int64)
        high_at, low_at = _last(kind == TIME_HIGH), _last((kind == TIME_LOW) | (kind == TIME_HIGH))
        row_at, base_at = _last(kind == ADDR_Y), _last(kind == BASE_X)
        fell = np.zeros(len(words), np.int64)
        highs = np.flatnonzero(kind == TIME_HIGH)
        fell[highs[1:]] = np.diff(load[highs]) < -_HALF_LOOP
        loop = loops + np.cumsum(fell)
        low = np.where(kind[low_at] == TIME_LOW, load[low_at], 0)
        time = (loop << 24) | (load[high_at] << 12) | low
        width = np.where(kind == VECT_12, 12, np.where(kind == VECT_8, 8, 0))
        before = np.cumsum(width) - width
        base = (load[base_at] & 0x7FF) + before - before[base_at]
        known = (high_at >= 0) & (row_at >= 0)

        single = np.flatnonzero((kind == ADDR_X) & known)
        vectors = np.flatnonzero((width > 0) & known & (base_at >= 0))
        lanes = np.where(width[vectors] == 12, load[vectors], load[vectors] & 0xFF)
        which, lane = np.nonzero((lanes[:, None] >> _LANES[:12]) & 1)
        vector = vectors[which]
        at = np.concatenate([single, vector])
        x = np.concatenate([load[single] & 0x7FF, base[vector] + lane])
        p = np.concatenate([load[single] >> 11, load[base_at[vector]] >> 11])
        order = np.argsort(at, kind="stable")
        at = at[order]
        yield Events(x[order], load[row_at[at]] & 0x7FF, p[order], time[at])

        loops = int(loop[-1]) if len(loop) else loops
        carried = _ending(load, (high_at, low_at, row_at, base_at), low, base + width)


def _ending(load: Ints, last: tuple[Ints, ...], low: Ints, base: Ints) -> np.ndarray:
    """Words that put the decoder into the state after the last word."""
    if not len(load):
        return np.empty(0, np.uint16)
    high_at, low_at, row_at, base_at = (int(where[-1]) for where in last)
    words = []
    if high_at >= 0:
        words.append(TIME_HIGH << 12 | int(load[high_at]))
    if low_at >= 0:
        words.append(TIME_LOW << 12 | int(low[-1]))
    if row_at >= 0:
        words.append(ADDR_Y << 12 | int(load[row_at]))
    if base_at >= 0:
        words.append(BASE_X << 12 | (int(load[base_at]) & 0x800) | (int(base[-1]) & 0x7FF))
    return np.array(words, np.uint16)
