"""The integrator of a spike camera as machine code: one pass over the frames, 16 pixels at a time.

Frames are read once and spikes written once; the potentials of a chunk of pixels stay in the first-level
cache over all frames. Multiply and add are never fused,
so the bits are those of single array operations.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from datamodules.native import compile_function

if TYPE_CHECKING:
    import numpy.typing as npt

Rule = Literal["above", "reached"]  # fires above the threshold (float32), or when it is reached (float64)

LANES = 16
CHUNK = 2048  # pixels: their potentials, and one frame of them, fit in a first-level cache
_SHARED_FROM = 1 << 21  # frames times pixels; below it a second thread costs more than it saves

_TEXT = """
define void @integrate(ptr %frames, ptr %v, ptr %spikes, i64 %T, i64 %stride, i64 %pixels,
                       {real} %gain, {real} %threshold) {{
entry:
  %g1 = insertelement {vector} poison, {real} %gain, i64 0
  %g = shufflevector {vector} %g1, {vector} poison, <16 x i32> zeroinitializer
  %h1 = insertelement {vector} poison, {real} %threshold, i64 0
  %h = shufflevector {vector} %h1, {vector} poison, <16 x i32> zeroinitializer
  br label %frame
frame:
  %t = phi i64 [ 0, %entry ], [ %t2, %next ]
  %start = mul i64 %t, %stride
  br label %pixel
pixel:
  %i = phi i64 [ 0, %frame ], [ %i2, %pixel ]
  %at = add i64 %start, %i
  %fp = getelementptr float, ptr %frames, i64 %at
  %vp = getelementptr {real}, ptr %v, i64 %i
  %sp = getelementptr i8, ptr %spikes, i64 %at
  %narrow = load <16 x float>, ptr %fp, align 4
  {widen}
  %v0 = load {vector}, ptr %vp, align {align}
  %charge = fmul {vector} %light, %g
  %v1 = fadd {vector} %v0, %charge
  %less = fsub {vector} %v1, %h
  %fires = fcmp {compare}
  %v2 = select <16 x i1> %fires, {vector} %less, {vector} %v1
  store {vector} %v2, ptr %vp, align {align}
  %bits = zext <16 x i1> %fires to <16 x i8>
  store <16 x i8> %bits, ptr %sp, align 1
  %i2 = add i64 %i, 16
  %more = icmp ult i64 %i2, %pixels
  br i1 %more, label %pixel, label %next
next:
  %t2 = add i64 %t, 1
  %again = icmp ult i64 %t2, %T
  br i1 %again, label %frame, label %end
end:
  ret void
}}
"""
_RULES = {
    "above": {
        "real": "float",
        "vector": "<16 x float>",
        "align": 4,
        "widen": "%light = fadd <16 x float> %narrow, zeroinitializer",
        "compare": "ogt <16 x float> %v1, %h",
    },
    "reached": {
        "real": "double",
        "vector": "<16 x double>",
        "align": 8,
        "widen": "%light = fpext <16 x float> %narrow to <16 x double>",
        "compare": "oge <16 x double> %less, zeroinitializer",
    },
}


@cache
def _compiled(rule: Rule) -> tuple[Any, Any]:
    """The function, and what keeps its code in memory."""
    i64, p = ctypes.c_int64, ctypes.c_void_p
    real = ctypes.c_float if rule == "above" else ctypes.c_double
    return compile_function(_TEXT.format(**_RULES[rule]), "integrate", p, p, p, i64, i64, i64, real, real)


def integrate(
    frames: npt.NDArray[np.float32],
    start: npt.NDArray[Any],
    rule: Rule,
    gain: float,
    threshold: float,
    threads: int | None = None,
) -> npt.NDArray[np.uint8]:
    """Integrate and fire over all frames.

    Args:
        frames: light, ``[T, P]`` in C order.
        start: potentials before the first frame, ``[P]``.
        rule: ``"above"`` computes in float32 and fires above the threshold, ``"reached"`` in float64 and
            fires when it is reached. Both subtract the threshold then.
        gain: what a frame of intensity 1 adds.
        threshold: of firing.
        threads: how many share the work; missing: the cores at hand, for long streams.

    Returns:
        0 and 1, ``[T, P]``.
    """
    T, pixels = frames.shape
    function, _ = _compiled(rule)
    real: type[np.floating[Any]] = np.float32 if rule == "above" else np.float64
    spikes = np.empty((T, pixels), dtype=np.uint8)
    v = np.array(start, dtype=real)  # a copy: the function writes into it
    whole = pixels - pixels % LANES

    def work(first: int) -> None:
        count = min(CHUNK, whole - first)
        function(
            frames.ctypes.data + 4 * first,
            v.ctypes.data + v.itemsize * first,
            spikes.ctypes.data + first,
            *(T, pixels, count, gain, threshold),
        )

    if T and whole:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        shared = cores if frames.size >= _SHARED_FROM else 1
        if (count := threads or shared) > 1:
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(work, range(0, whole, CHUNK)))
        else:  # a pool takes longer to start than a small stream to integrate
            for first in range(0, whole, CHUNK):
                work(first)
    if pixels > whole:  # the last ones, among idle neighbours
        rest = np.zeros((T, LANES), dtype=np.float32)
        rest[:, : pixels - whole] = frames[:, whole:]
        begin = np.zeros(LANES, dtype=real)
        begin[: pixels - whole] = start[whole:]
        spikes[:, whole:] = integrate(rest, begin, rule, gain, threshold, 1)[:, : pixels - whole]
    return spikes
