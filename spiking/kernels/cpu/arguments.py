"""The block of arguments that every kernel reads: one layout for Python and for the code that is written."""

from __future__ import annotations

import ctypes

MAX_PARAMS = 8
POINTERS = (
    "x", "out", "g", "gx", "start0", "start1", "end0", "end1", "gend0", "gend1", "gstart0", "gstart1",
    "scratch", "sums", "coefficients", "conductance", "grad_coefficients", "grad_conductance",
    "scale", "shift", "centre", "slope", "lift", "channel_sums",
)  # fmt: skip
SIZES = (
    "x_step", "out_step", "g_step", "steps", "block", "scratch_size", "sums_size", "repeats", "neurons",
    "channels", "inner", "pieces", "channel_sums_size", "windows", "across",
)  # fmt: skip
TEAM = ("full", "thread_num", "num_threads", "kernel")  # for the function that each thread runs


class Arguments(ctypes.Structure):
    """Addresses (0 where there is no tensor), sizes, and the values of `Rule.names` in ``params``.

    All are 0 until they are set.
    """

    _fields_ = (
        *((name, ctypes.c_int64) for name in (*POINTERS, *SIZES, *TEAM)),
        ("params", ctypes.c_double * MAX_PARAMS),
    )


def slot(name: str) -> int:
    """Where an argument lies, in units of eight bytes."""
    field = getattr(Arguments, name)
    offset: int = field.offset
    return offset // 8
