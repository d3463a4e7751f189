"""Events in containers of arrays: NumPy's ``.npz`` and ``.npy``, MATLAB's ``.mat``, HDF5."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.events.readers.record import BLOCK, EXTRA, Blocks, Events, Size, checked, first_bytes
from datamodules.loading.errors import DataError

NAMES = {  # what people call the four columns
    "x": ("x", "xs", "addr_x", "x_coordinate"),
    "y": ("y", "ys", "addr_y", "y_coordinate"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
    "t": ("t", "ts", "timestamp", "timestamps", "time", "times"),
}
CIN = 6  # columns of dat2mat.m: time, two that mean nothing, x, y, polarity
_HDF5 = b"\x89HDF\r\n\x1a\n"


def _columns(names: Any) -> dict[str, str] | None:
    """Which of `names` holds x, y, p and t; None if one is missing."""
    lower = {str(name).lower(): str(name) for name in names or ()}
    found = {
        key: next((lower[word] for word in words if word in lower), None) for key, words in NAMES.items()
    }
    return None if None in found.values() else {k: str(v) for k, v in found.items()}


def _from_mapping(table: Mapping[str, Any], path: Path) -> Events:
    """Columns by name, one structured array, or MATLAB's matrix of six columns."""
    names = _columns(table)
    if names is not None:
        return checked(path, *(table[names[k]] for k in "xypt"))
    for value in table.values():
        array = np.asarray(value)
        fields = _columns(array.dtype.names)
        if fields is not None:
            row = array.reshape(-1)[0] if array.size == 1 and array.dtype[0].hasobject else array
            return checked(path, *(row[fields[k]] for k in "xypt"))
        if path.suffix.lower() == ".mat" and array.ndim == 2 and array.shape[1] == CIN:
            return checked(path, array[:, 3], array[:, 4], array[:, 5], array[:, 0])
    shapes = ", ".join(f"{k} {np.shape(v)}" for k, v in table.items())
    raise DataError(
        f"{path} holds {shapes or 'nothing'}; expected columns x, y, p and t (or pol, ts, timestamp ...), or"
        " a structured array of them"
    )


def blocks_npz(path: Path) -> Blocks:
    """``.npz`` with columns x, y, p and t, or ``.npy`` with a structured array; in one block."""
    first_bytes(path, 1)
    try:
        stored = np.load(path, allow_pickle=False)
        table = dict(stored) if hasattr(stored, "files") else {"array": stored}
    except Exception as error:  # a zip file, a header, or numbers that end too early
        raise DataError(f"{path} cannot be read as NumPy's, or was cut off: {error}") from error
    yield _from_mapping(table, path)


def blocks_mat(path: Path) -> Blocks:
    """``.mat``: columns by name, a struct of them, or dat2mat.m's matrix; in one block.

    Files of version 7.3 are HDF5.
    """
    if first_bytes(path, 520)[512:520] == _HDF5:
        yield from blocks_hdf5(path)
        return
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise DataError(f"{path}: MATLAB's files need scipy: {EXTRA}") from error
    try:
        stored = loadmat(path)
    except Exception as error:  # NotImplementedError, ValueError, zlib's ...
        raise DataError(f"{path} cannot be read as MATLAB's, or was cut off: {error}") from error
    yield _from_mapping({k: v for k, v in stored.items() if not k.startswith("__")}, path)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An HDF5 file, read only, with errors in words."""
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{path}: HDF5 files need h5py: {EXTRA}") from error
    first_bytes(path, 1)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        hint = ""
        if "filter" in str(error) or "can't open directory" in str(error):
            hint = (
                "; it is compressed with a filter that is not installed: hdf5plugin brings most, Prophesee's"
                " hdf5_ecf theirs (HDF5_PLUGIN_PATH names its folder)"
            )
        raise DataError(f"{path} cannot be read as HDF5, or was cut off: {error}{hint}") from error


def _dataset(file: Any, path: Path) -> tuple[Mapping[str, Any], int, int]:
    """The columns of events, how many there are, and the offset of their times."""
    import h5py

    for place in ("CD/events", "events", "CD", "."):
        if place not in file and place != ".":
            continue
        node = file if place == "." else file[place]
        if isinstance(node, h5py.Dataset):
            names = _columns(node.dtype.names)
            if names is not None:
                return {k: (node, v) for k, v in names.items()}, len(node), 0
        elif (names := _columns(k for k, v in node.items() if isinstance(v, h5py.Dataset))) is not None:
            columns = {k: (node[v], None) for k, v in names.items()}
            offset = file.get("t_offset", node.get("t_offset"))  # of DSEC
            return columns, len(columns["t"][0]), 0 if offset is None else int(offset[()])
    raise DataError(
        f"{path} holds {', '.join(file) or 'nothing'}; expected a table of x, y, p and t in CD/events"
        " (Prophesee), events, or at the top"
    )


def blocks_hdf5(path: Path) -> Blocks:
    """HDF5 of Prophesee (``CD/events``), of DSEC (``events/x`` ...) and others of such names."""
    with opened(path) as file:
        columns, count, offset = _dataset(file, path)
        for start in range(0, count, BLOCK):
            part = slice(start, start + BLOCK)
            read = {
                k: node[part] if field is None else node[part][field] for k, (node, field) in columns.items()
            }
            events = checked(path, *(read[k] for k in "xypt"))
            yield events._replace(t=events.t + offset) if offset else events


def size_hdf5(path: Path) -> Size | None:
    """Height and width where Prophesee's attributes name them."""
    with opened(path) as file:
        geometry = str(file.attrs.get("geometry", ""))
        width, cross, height = geometry.partition("x")
        if cross and width.isdigit() and height.isdigit():
            return int(height), int(width)
    return None
