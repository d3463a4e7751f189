"""Recordings of N-MNIST and N-Caltech101: ``.bin``, and ``.bs2`` of SLAYER."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datamodules.events.readers.record import Blocks, Events, joined, words_of


def blocks_nmnist(path: Path) -> Blocks:
    """Five bytes an event: x, y, then 24 bits, big-endian: polarity, and 23 bits of microseconds."""
    for rows in words_of(path, 0, np.dtype(("u1", 5)), "recording of five bytes an event"):
        table = rows.astype(np.int64)
        word = (table[:, 2] << 16) | (table[:, 3] << 8) | table[:, 4]
        yield Events(table[:, 0], table[:, 1], word >> 23, word & 0x7FFFFF)


def read_nmnist(path: str | Path) -> Events:
    """Read a recording of N-MNIST or N-Caltech101, ``.bin`` or ``.bs2``."""
    return joined(blocks_nmnist(Path(path)))
