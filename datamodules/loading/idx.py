"""The IDX files of the MNIST family, gzipped or plain."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datamodules.loading.datasets import Arrays
from datamodules.loading.errors import DataError

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def find_idx(folder: Path, name: str) -> Path | None:
    """Return ``folder/name`` or ``folder/name.gz``, whichever exists."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


def has_idx(folder: Path) -> bool:
    """Tell whether all four files are in `folder`."""
    return all(find_idx(folder, name) for names in FILES.values() for name in names)


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read one file: two zero bytes, type 8 (uint8), rank, sizes big-endian, data.

    Args:
        path: the file; gzipped if its name ends in ``.gz``.

    Returns:
        uint8 array of the shape that the header states.
    """
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}; delete it and fetch it again") from error
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is not an IDX file of bytes (starts with {raw[:4]!r})")
    rank = raw[3]
    shape = tuple(np.frombuffer(raw, ">u4", count=rank, offset=4).tolist())
    expected, got = math.prod(shape), len(raw) - 4 - 4 * rank
    if expected != got:
        raise DataError(f"{path} is cut off: expected {expected} bytes for {shape}, got {got}")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read_split(folder: Path, split: str) -> Arrays:
    """Read images uint8 ``[N, 1, H, W]`` and labels ``[N]`` of "train" or "test"."""
    paths = [find_idx(folder, name) for name in FILES[split]]
    if paths[0] is None or paths[1] is None:
        raise DataError(f"{folder} lacks {' or '.join(FILES[split])} (plain or .gz)")
    images, labels = read_idx(paths[0]), read_idx(paths[1])
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"{paths[0].name} {images.shape} and {paths[1].name} {labels.shape} in {folder}"
            " do not belong together"
        )
    return Arrays(images[:, None], labels.astype(np.int64))
