"""Refuses what no memory can hold, before any is taken."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import torch

SMALL = 1 << 28  # bytes that need no look
SHARE = 0.5  # of a device's memory that one tensor may take: it has an input, too, and a next layer


def require_memory(what: str, needed: int, device: torch.device, way_out: str) -> None:
    """Raise an error if ``needed`` bytes are more than ``device`` can spare.

    That is half of its memory in all; on a CPU no more than what is free now, either.

    Args:
        what: the tensor, in words.
        needed: its bytes.
        device: where it would lie.
        way_out: what the caller can do.

    Raises:
        ValueError: names the bytes and the way out.
    """
    if torch.compiler.is_compiling() or needed <= SMALL or device.type == "meta":
        return
    spare = _spare(device)
    if spare is not None and needed > spare:
        raise ValueError(
            f"{what} would take {needed:,} bytes ({needed / 1e9:,.0f} GB), more than the"
            f" {spare / 1e9:,.1f} GB that {device} can spare; {way_out}"
        )


def require_matrix(owner: str, time_steps: int, columns: int) -> None:
    """The same for a parameter ``[T, T']``, wherever it is about to be made."""
    what = f"the matrix [T, T'] = [{time_steps}, {columns}] of {owner}"
    require_memory(what, 4 * time_steps * columns, torch.get_default_device(), "use fewer time_steps")


def _spare(device: torch.device) -> int | None:
    """Bytes that one tensor may take, None where they are unknown."""
    if device.type == "cuda":
        return int(SHARE * torch.cuda.get_device_properties(device).total_memory)
    if device.type != "cpu":
        return None
    total = _memory_of_the_machine()
    found = [] if total is None else [int(SHARE * total)]
    try:
        rows = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        rows = []
    found += [1024 * int(row.split()[1]) for row in rows if row.startswith("MemAvailable:")]
    return min(found, default=None)


@cache
def _memory_of_the_machine() -> int | None:
    """Bytes in all, or those that a container may have."""
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    words = limit.read_text().strip() if limit.is_file() else "max"
    return min(machine, int(words)) if words.isdigit() else machine
