"""Keeps the pages of large tensors in the process, for reuse by the next ones."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

USER_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_MMAP_FROM, _TRIM_FROM = 1 << 30, (1 << 31) - 1


@cache
def keep_memory() -> bool:
    """Let the C library keep freed memory for later tensors, in this process and until it ends.

    glibc's malloc maps every block above 32 MiB afresh and gives it back on release, so that each training
    step pays a page fault for every 4 KiB of every large activation: on a CPU more time than a fused neuron
    needs for its work. After this call blocks of up to 1 GiB come from the heap, and up to 2 GiB of freed
    memory at its end stay with the process.

    No neuron and no model calls it; the command ``fulgurite`` does when it trains, converts or predicts. In
    a Python program call it once, before the first large tensor::

        import spiking
        spiking.keep_memory()

    ``FULGURITE_MALLOC=default`` in the environment turns it off, and so does any setting of malloc of the
    user's own (``MALLOC_MMAP_THRESHOLD_``, ``MALLOC_TRIM_THRESHOLD_``, ``GLIBC_TUNABLES``).

    Returns:
        Whether the C library agreed; False where it is another one than glibc.
    """
    if platform.libc_ver()[0] != "glibc" or os.environ.get("FULGURITE_MALLOC") == "default":
        return False
    if any(name in os.environ for name in USER_SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    trimmed, mapped = mallopt(_M_TRIM_THRESHOLD, _TRIM_FROM), mallopt(_M_MMAP_THRESHOLD, _MMAP_FROM)
    return bool(trimmed and mapped)
