"""Counting events by polarity and pixel as machine code: one pass over them."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.native import compile_function

if TYPE_CHECKING:
    import numpy.typing as npt

    from datamodules.events.readers import Events

_TEXT = """
define void @count(ptr %xs, ptr %ys, ptr %ps, i64 %first, i64 %last, ptr %counts, i64 %height, i64 %width) {
entry:
  %some = icmp slt i64 %first, %last
  br i1 %some, label %event, label %end
event:
  %i = phi i64 [ %first, %entry ], [ %i2, %event ]
  %xp = getelementptr i64, ptr %xs, i64 %i
  %yp = getelementptr i64, ptr %ys, i64 %i
  %pp = getelementptr i64, ptr %ps, i64 %i
  %x = load i64, ptr %xp, align 8
  %y = load i64, ptr %yp, align 8
  %p = load i64, ptr %pp, align 8
  %r0 = mul i64 %p, %height
  %r = add i64 %r0, %y
  %c0 = mul i64 %r, %width
  %c = add i64 %c0, %x
  %cp = getelementptr i32, ptr %counts, i64 %c
  %old = load i32, ptr %cp, align 4
  %new = add i32 %old, 1
  store i32 %new, ptr %cp, align 4
  %i2 = add i64 %i, 1
  %more = icmp slt i64 %i2, %last
  br i1 %more, label %event, label %end
end:
  ret void
}
"""


@cache
def _compiled() -> tuple[Any, Any]:
    """The function, and what keeps its code in memory."""
    i64, p = ctypes.c_int64, ctypes.c_void_p
    return compile_function(_TEXT, "count", p, p, p, i64, i64, p, i64, i64)


def count_events(
    events: Events, edges: npt.NDArray[np.int64], size: tuple[int, int]
) -> npt.NDArray[np.uint32]:
    """Count events between edges by polarity and pixel.

    Args:
        events: all on the sensor, with polarities 0 and 1; nothing is checked here.
        edges: numbers of events, rising: frame k holds those from ``edges[k]`` to ``edges[k + 1]``.
        size: H and W of the sensor.

    Returns:
        uint32 ``[len(edges) - 1, 2, H, W]``.
    """
    height, width = size
    counts = np.zeros((len(edges) - 1, 2, height, width), np.uint32)
    columns = [np.ascontiguousarray(column, dtype=np.int64) for column in (events.x, events.y, events.p)]
    places = [column.ctypes.data for column in columns]
    function, _ = _compiled()
    bounds = edges.tolist()
    start, stride = counts.ctypes.data, counts.strides[0]
    for k in range(len(counts)):
        function(*places, bounds[k], bounds[k + 1], start + k * stride, height, width)
    return counts
