"""Counting events by polarity and pixel as machine code: one pass over them."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from datamodules.events.readers.record import Events, Size, inside
from datamodules.native import compile_function

if TYPE_CHECKING:
    from pathlib import Path

_TEXT = """
define void @count(ptr %xs, ptr %ys, ptr %ps, ptr %edges, i64 %frames, ptr %counts, i64 %height, i64 %width,
                   ptr %told) {
entry:
  %pixels = mul i64 %height, %width
  %stride = mul i64 %pixels, 2
  %some = icmp sgt i64 %frames, 0
  br i1 %some, label %frame, label %end
frame:
  %k = phi i64 [ 0, %entry ], [ %k2, %next ]
  %most = phi iBITS [ 0, %entry ], [ %most3, %next ]
  %k2 = add i64 %k, 1
  %firstp = getelementptr i64, ptr %edges, i64 %k
  %lastp = getelementptr i64, ptr %edges, i64 %k2
  %first = load i64, ptr %firstp, align 8
  %last = load i64, ptr %lastp, align 8
  %base = mul i64 %k, %stride
  %any = icmp slt i64 %first, %last
  br i1 %any, label %event, label %next
event:
  %i = phi i64 [ %first, %frame ], [ %i2, %add ]
  %most1 = phi iBITS [ %most, %frame ], [ %most2, %add ]
  %xp = getelementptr i64, ptr %xs, i64 %i
  %yp = getelementptr i64, ptr %ys, i64 %i
  %pp = getelementptr i64, ptr %ps, i64 %i
  %x = load i64, ptr %xp, align 8
  %y = load i64, ptr %yp, align 8
  %p = load i64, ptr %pp, align 8
  %xin = icmp ult i64 %x, %width
  %yin = icmp ult i64 %y, %height
  %pin = icmp ult i64 %p, 2
  %xyin = and i1 %xin, %yin
  %in = and i1 %xyin, %pin
  br i1 %in, label %add, label %outside
add:
  %r0 = mul i64 %p, %height
  %r = add i64 %r0, %y
  %c0 = mul i64 %r, %width
  %c1 = add i64 %c0, %x
  %c = add i64 %c1, %base
  %cp = getelementptr iBITS, ptr %counts, i64 %c
  %old = load iBITS, ptr %cp, align 1
  %new = add iBITS %old, 1
  store iBITS %new, ptr %cp, align 1
  %higher = icmp ugt iBITS %new, %most1
  %most2 = select i1 %higher, iBITS %new, iBITS %most1
  %i2 = add i64 %i, 1
  %more = icmp slt i64 %i2, %last
  br i1 %more, label %event, label %next
next:
  %most3 = phi iBITS [ %most, %frame ], [ %most2, %add ]
  %again = icmp slt i64 %k2, %frames
  br i1 %again, label %frame, label %counted
counted:
  %wide = zext iBITS %most3 to i64
  store i64 %wide, ptr %told, align 8
  br label %end
outside:
  store i64 -1, ptr %told, align 8
  br label %end
end:
  ret void
}
"""
Counts = npt.NDArray[np.unsignedinteger[Any]]


@cache
def _compiled(bits: int) -> tuple[Any, Any]:
    """The function for counts of so many bits, and what keeps its code in memory."""
    i64, p = ctypes.c_int64, ctypes.c_void_p
    return compile_function(_TEXT.replace("BITS", str(bits)), "count", p, p, p, p, i64, p, i64, i64, p)


def count_events(
    events: Events, edges: npt.NDArray[np.int64], size: Size, what: str | Path = "the recording"
) -> Counts:
    """Count events between edges by polarity and pixel.

    Args:
        events: of one recording.
        edges: numbers of events, rising: frame k holds those from ``edges[k]`` to ``edges[k + 1]``.
        size: H and W of the sensor.
        what: the file, for messages.

    Returns:
        ``[len(edges) - 1, 2, H, W]``; uint8, or uint16 or uint32 where a count needs it.

    Raises:
        DataError: an event outside of the sensor, or a polarity that is none.
    """
    height, width = size
    dtype = np.min_scalar_type(len(events.t))  # which no count can pass; a narrow one stays in the cache
    counts: Counts = np.zeros((len(edges) - 1, 2, height, width), dtype)
    columns = [np.ascontiguousarray(c, dtype=np.int64) for c in (events.x, events.y, events.p, edges)]
    places = [column.ctypes.data for column in columns]
    function, _ = _compiled(8 * dtype.itemsize)
    largest = ctypes.c_int64()
    function(*places, len(counts), counts.ctypes.data, height, width, ctypes.addressof(largest))
    most = largest.value
    if most < 0:
        inside(events, size, what)
        raise AssertionError("an event was taken to be outside of its sensor")
    return counts.astype(np.min_scalar_type(most), copy=False)
