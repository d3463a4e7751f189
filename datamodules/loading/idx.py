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

PACKED = 1100  # at most what a byte of a gzip file unpacks to
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
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4)
            head += file.read(4 * (head[3] if len(head) == 4 else 0))
            # no more than the header states and a byte that tells of more: packed files can grow without end
            raw = head + file.read(min(_size(head), PACKED * path.stat().st_size) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}; delete it and fetch it again") from error
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is not an IDX file of bytes (starts with {raw[:4]!r})")
    rank = raw[3]
    if len(raw) < 4 + 4 * rank or rank > 8:
        raise DataError(f"{path} is cut off, or no IDX file: its header claims {rank} axes")
    shape = tuple(np.frombuffer(raw, ">u4", count=rank, offset=4).tolist())
    expected, got = math.prod(shape), len(raw) - 4 - 4 * rank
    if expected != got:
        raise DataError(f"{path} is cut off: expected {expected} bytes for {shape}, got {got}")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _size(head: bytes) -> int:
    """Bytes of data that a header states; 0 where it is cut off."""
    if len(head) < 4 or len(head) < 4 + 4 * head[3]:
        return 0
    return math.prod(np.frombuffer(head, ">u4", count=head[3], offset=4).tolist())


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
