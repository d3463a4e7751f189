"""Which format a recording has, and its events whatever the format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datamodules.events.readers import aedat, arrays, nmnist, prophesee
from datamodules.events.readers.record import Blocks, Events, Size, first_bytes, joined
from datamodules.loading.errors import DataError


@dataclass(frozen=True)
class Format:
    """How a kind of file is read.

    Attributes:
        name: for people.
        blocks: its events, some of them at a time.
        size: height and width of the sensor, where the file tells.
    """

    name: str
    blocks: Callable[[Path], Blocks]
    size: Callable[[Path], Size | None] = lambda _: None


_AEDAT = {
    2: Format("AEDAT 2.0", aedat.blocks_aedat2, aedat.size_dvs128),
    3: Format("AEDAT 3", aedat.blocks_aedat3),
    4: Format("AEDAT 4", aedat.blocks_aedat4, aedat.size_aedat4),
}
_HDF5 = Format("HDF5", arrays.blocks_hdf5, arrays.size_hdf5)
_NUMPY = Format("NumPy", arrays.blocks_npz)
_FORMATS = {
    ".bin": Format("N-MNIST", nmnist.blocks_nmnist),
    ".bs2": Format("N-MNIST", nmnist.blocks_nmnist),
    ".dat": Format(".dat", prophesee.blocks_dat, prophesee.size_prophesee),
    ".raw": Format(".raw", prophesee.blocks_raw, prophesee.size_prophesee),
    ".npz": _NUMPY,
    ".npy": _NUMPY,
    ".mat": Format("MATLAB", arrays.blocks_mat),
    ".h5": _HDF5,
    ".hdf5": _HDF5,
}
SUFFIXES = (".aedat", ".aedat4", *_FORMATS)


def format_of(path: str | Path) -> Format:
    """The format by the file's name, for AEDAT also by its first line.

    Raises:
        DataError: the file is missing, or nothing is known of its kind.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".aedat", ".aedat4"):
        number = aedat.version(path)
        if number not in _AEDAT:
            raise DataError(
                f"{path} is no AEDAT file of version 2, 3 or 4: it begins with {first_bytes(path, 12)!r}"
            )
        return _AEDAT[number]
    if suffix not in _FORMATS:
        raise DataError(f"{path}: no reader for '{suffix}'; there are some for {', '.join(SUFFIXES)}")
    return _FORMATS[suffix]


def event_blocks(path: str | Path) -> Blocks:
    """Events of a recording in order of the file, some at a time, so that it need not fit into memory.

    ``.npz``, ``.npy`` and ``.mat`` come in one block.

    Raises:
        DataError: the file is missing, cut off, or in another format; or a package that it needs is missing.
    """
    return format_of(path).blocks(Path(path))


def read_events(path: str | Path) -> Events:
    """All events of a recording, see `event_blocks`."""
    return joined(event_blocks(path))


def sensor_size(path: str | Path) -> Size | None:
    """Height and width of the sensor, where the file tells.

    Raises:
        DataError: see `event_blocks`.
    """
    return format_of(path).size(Path(path))
