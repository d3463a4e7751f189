"""``.dat`` files of spike cameras: frames of bits without a header.

Each frame is flipped vertically and flattened row by row, eight pixels a byte, the first one in the least
significant bit. Where H * W is no multiple of eight, the last byte of a frame is filled with zeros.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.loading.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt


class DatFile:
    """A stream on disk, memory-mapped: frames are unpacked when they are asked for.

    >>> DatFile("scene.dat", height=250, width=400)[100:177].shape  # doctest: +SKIP
    (77, 250, 400)

    Args:
        path: the file.
        height: H.
        width: W.
        flip: whether frames are stored upside down, as cameras do.

    Raises:
        DataError: there is no such file, or its size is no whole number of frames.
        ValueError: H or W below 1.
    """

    def __init__(self, path: str | Path, *, height: int, width: int, flip: bool = True) -> None:
        if height < 1 or width < 1:
            raise ValueError(f"height and width must be at least 1, got {height} and {width}")
        self.path, self.height, self.width, self.flip = Path(path), height, width, flip
        try:
            size = self.path.stat().st_size
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from error
        each = frame_bytes(height, width)
        if size == 0 or size % each:
            raise DataError(
                f"{path} has {size:,} bytes, which is no whole number of frames of {each:,} bytes"
                f" ({height} x {width} pixels); it is truncated, or height and width are others"
            )
        self._packed = np.memmap(self.path, dtype=np.uint8, mode="r").reshape(-1, each)

    def __len__(self) -> int:
        """T."""
        return len(self._packed)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(T, H, W)``."""
        return len(self), self.height, self.width

    def __getitem__(self, frames: slice | int) -> npt.NDArray[np.uint8]:
        """0 and 1: a frame ``[H, W]``, or several ``[T', H, W]``."""
        packed = np.asarray(self._packed[frames])
        bits = np.unpackbits(packed, axis=-1, count=self.height * self.width, bitorder="little")
        spikes = bits.reshape(*packed.shape[:-1], self.height, self.width)
        return np.ascontiguousarray(spikes[..., ::-1, :]) if self.flip else spikes

    def central(self, frames: int) -> npt.NDArray[np.uint8]:
        """The frames around frame T // 2, ``[frames, H, W]``.

        Raises:
            DataError: the stream is shorter.
        """
        if len(self) < frames:
            raise DataError(f"{self.path} has {len(self)} frames, {frames} are needed")
        start = len(self) // 2 - frames // 2
        return self[start : start + frames]


def frame_bytes(height: int, width: int) -> int:
    """Bytes of one frame."""
    return -(-height * width // 8)


def pack(spikes: npt.NDArray[Any], flip: bool = True) -> npt.NDArray[np.uint8]:
    """Spikes 0 and 1, ``[T, H, W]`` -> the bytes of a ``.dat`` file, ``[T, B]``.

    Raises:
        DataError: values other than 0 and 1, or another shape.
    """
    if spikes.ndim != 3 or 0 in spikes.shape:
        raise DataError(f"expected spikes [T, H, W], got {spikes.shape}")
    if not np.isin(spikes, (0, 1)).all():
        raise DataError(f"spikes are 0 or 1, got values up to {spikes.max()}")
    frames = spikes[:, ::-1] if flip else spikes
    return np.packbits(frames.reshape(len(spikes), -1).astype(bool), axis=1, bitorder="little")


def write_dat(path: str | Path, spikes: npt.NDArray[Any], flip: bool = True) -> None:
    """Write a stream ``[T, H, W]``; a file that is there is replaced when the new one is whole.

    Raises:
        DataError: values other than 0 and 1, another shape, or a disk that takes no more.
    """
    packed = pack(spikes, flip)
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        packed.tofile(unfinished)
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise DataError(f"{path} could not be written: {error}") from error
