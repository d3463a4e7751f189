"""Keeps the pages of large tensors between training steps.

glibc's malloc maps every block above 32 MiB (at first: 128 KiB) afresh and gives it back on release, so
that each step pays a page fault for every 4 KiB of every activation: more time than a fused neuron needs
for its work. Users would have to set ``MALLOC_MMAP_THRESHOLD_`` and ``MALLOC_TRIM_THRESHOLD_`` before
Python starts; ``mallopt`` says the same to the running process. It is called once, at the first neuron
kernel on a large CPU tensor. Freed memory then stays with the process for reuse, up to 2 GiB at the end
of the heap. ``FULGURITE_MALLOC=default`` leaves malloc alone, and so does any ``MALLOC_*_THRESHOLD_``
that the user has set.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

FROM_BYTES = 1 << 20  # smaller results come from the heap anyway
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_MMAP_FROM, _TRIM_FROM = 1 << 30, (1 << 31) - 1


@cache
def keep_pages() -> bool:
    """Tells glibc to serve large blocks from its heap; returns whether it agreed."""
    if platform.libc_ver()[0] != "glibc" or os.environ.get("FULGURITE_MALLOC") == "default":
        return False
    if {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"} & set(os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    trimmed, mapped = mallopt(_M_TRIM_THRESHOLD, _TRIM_FROM), mallopt(_M_MMAP_THRESHOLD, _MMAP_FROM)
    return bool(trimmed and mapped)
