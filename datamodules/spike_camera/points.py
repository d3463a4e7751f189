"""Sparse points of a scene: ``.ply`` as nerfstudio writes it, ``points3D`` as COLMAP does.

Axes: P points.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.loading.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Points = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]

_PLY_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}


def read_points(path: Path) -> Points:
    """Points ``[P, 3]`` and their colours ``[P, 3]`` in [0, 1] (0.5 where the file has none), float32.

    Args:
        path: a ``.ply`` file, ``points3D.txt`` or ``points3D.bin``.

    Raises:
        DataError: no such file, another format, or a truncated file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    readers = {".ply": _ply, ".txt": _colmap_text, ".bin": _colmap_binary}
    if path.suffix not in readers:
        raise DataError(f"{path} is no file of points; known: .ply, points3D.txt, points3D.bin")
    try:
        points, colors = readers[path.suffix](content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (ValueError, IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as points: {error}") from error
    return points.astype(np.float32), colors.astype(np.float32)


def _ply(content: bytes) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    head, found, body = content.partition(b"end_header\n")
    if not found or not head.startswith(b"ply"):
        raise DataError("no PLY header")
    lines = [line.split() for line in head.decode("ascii").splitlines()]
    form = next(line[1] for line in lines if line[:1] == ["format"])
    elements = [i for i, line in enumerate(lines) if line[:1] == ["element"]]
    if not elements or lines[elements[0]][1] != "vertex":
        raise DataError("the first element of the file is no vertex")
    count = int(lines[elements[0]][2])
    own = lines[elements[0] + 1 : elements[1] if len(elements) > 1 else None]
    properties = [(line[2], _PLY_TYPES[line[1]]) for line in own if line[:1] == ["property"]]
    if form == "ascii":
        rows = [line.split() for line in body.decode("ascii").splitlines()[:count]]
        table: dict[str, Any] = {
            name: np.array([float(row[i]) for row in rows]) for i, (name, _) in enumerate(properties)
        }
        held = len(rows)
    else:
        order = "<" if form == "binary_little_endian" else ">"
        dtype = np.dtype([(name, order + kind) for name, kind in properties])
        held = min(count, len(body) // dtype.itemsize)
        data = np.frombuffer(body, dtype, held)
        table = {name: data[name] for name, _ in properties}
    if held < count:
        raise DataError(f"it is truncated: {held:,} of {count:,} points")
    points = np.stack([table[axis] for axis in "xyz"], -1)
    names = ("red", "green", "blue")
    if not all(name in table for name in names):
        return points, np.full_like(points, 0.5, dtype=np.float32)
    bytes_ = dict(properties)["red"] == "u1"
    return points, np.stack([table[name] for name in names], -1) / (255.0 if bytes_ else 1.0)


def _colmap_text(content: bytes) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    lines = [line.split() for line in content.decode().splitlines() if line.strip() and line[0] != "#"]
    table = np.array([[float(word) for word in line[1:7]] for line in lines]).reshape(-1, 6)
    return table[:, :3], table[:, 3:] / 255.0


def _colmap_binary(content: bytes) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    (count,) = struct.unpack_from("<Q", content)
    points, colors, at = np.empty((count, 3)), np.empty((count, 3)), 8
    for i in range(count):
        _, *values, _, seen = struct.unpack_from("<Q3d3BdQ", content, at)
        points[i], colors[i] = values[:3], values[3:]
        at += struct.calcsize("<Q3d3BdQ") + 8 * seen
    if at > len(content):
        raise DataError("it is truncated")
    return points, colors / 255.0
