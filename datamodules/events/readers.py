"""Files of event cameras: what is in them, and how events become frames.

An event says that a pixel became brighter (polarity 1) or darker (0) at a microsecond. The readers follow the
formats of the published files and need no library.

Axes: N events, T frames, H W sensor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from datamodules.loading.errors import DataError

SplitBy = Literal["count", "time"]
Counts = npt.NDArray[np.unsignedinteger[Any]]


class Events(NamedTuple):
    """Events in the order of the file, ``[N]`` each: column, row, polarity 0 or 1, microseconds."""

    x: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    p: npt.NDArray[np.int64]
    t: npt.NDArray[np.int64]


def read_nmnist(path: str | Path) -> Events:
    """Read a recording of N-MNIST or N-Caltech101, ``.bin`` or ``.bs2``.

    Five bytes an event: x, y, then 24 bits, big-endian, the polarity in front of 23 bits of microseconds.
    """
    raw = _bytes(path)
    if not raw or len(raw) % 5:
        raise DataError(f"{path} is no recording of five bytes an event: it has {len(raw)} bytes")
    table = np.frombuffer(raw, np.uint8).reshape(-1, 5).astype(np.int64)
    word = (table[:, 2] << 16) | (table[:, 3] << 8) | table[:, 4]
    return Events(table[:, 0], table[:, 1], word >> 23, word & 0x7FFFFF)


def read_aedat2(path: str | Path) -> Events:
    """Read a recording of a DVS128 camera in AEDAT 2.0, as CIFAR10-DVS has them.

    Header lines begin with ``#``. Eight bytes an event, big-endian: address (polarity in bit 0, two times
    seven bits of coordinates) and microseconds. The image is turned upright and bright is 1, as the field
    reads these files, though not the script that came with them.
    """
    raw = _bytes(path)
    start = 0
    while raw[start : start + 1] == b"#":
        end = raw.find(b"\n", start)
        if end < 0:
            break
        start = end + 1
    words = raw[start:]
    if not words or len(words) % 8:
        raise DataError(f"{path} is no AEDAT 2.0 file: {len(words)} bytes after its header")
    table = np.frombuffer(words, ">u4").reshape(-1, 2).astype(np.int64)
    address = table[:, 0]
    first, second = (address >> 1) & 0x7F, (address >> 8) & 0x7F
    return Events(127 - second, 127 - first, 1 - (address & 1), table[:, 1])


_PACKET = np.dtype(
    [
        *(("type", "<u2"), ("source", "<u2"), ("size", "<u4"), ("offset", "<u4"), ("overflow", "<u4")),
        *(("capacity", "<u4"), ("number", "<u4"), ("valid", "<u4")),
    ]
)
_POLARITY = 1  # number of the packets of brightness changes


def read_aedat3(path: str | Path, start: int | None = None, stop: int | None = None) -> Events:
    """Read brightness changes from AEDAT 3.1, as DVS128 Gesture has them.

    Packets of a 28-byte header and events of eight bytes, little-endian: 15 bits of x, 15 of y, polarity,
    a valid bit; then microseconds.

    Args:
        path: the file.
        start: first microsecond; from the beginning if missing.
        stop: microsecond behind the last; to the end if missing.
    """
    raw = _bytes(path)
    end = raw.find(b"#End Of ASCII Header\r\n")
    if not raw.startswith(b"#!AER-DAT3") or end < 0:
        raise DataError(f"{path} is no AEDAT 3 file: it begins with {raw[:12]!r}")
    at = end + len(b"#End Of ASCII Header\r\n")
    parts = []
    while at + _PACKET.itemsize <= len(raw):
        header = np.frombuffer(raw, _PACKET, 1, at)[0]
        at += _PACKET.itemsize
        length = int(header["size"]) * int(header["number"])
        if at + length > len(raw):
            raise DataError(f"{path} is cut off: {length} bytes should follow byte {at} of {len(raw)}")
        if header["type"] == _POLARITY:
            words = np.frombuffer(raw, "<u4", length // 4, at).reshape(-1, 2).astype(np.int64)
            words[:, 1] += int(header["overflow"]) << 31
            parts.append(words)
            if stop is not None and len(words) and words[0, 1] >= stop:
                break
        at += length
    table = np.concatenate(parts) if parts else np.empty((0, 2), np.int64)
    low = -1 if start is None else start
    kept = (table[:, 1] >= low) & (table[:, 1] < (np.inf if stop is None else stop))
    data, time = table[kept].T
    return Events((data >> 17) & 0x1FFF, (data >> 2) & 0x1FFF, (data >> 1) & 1, time)


def to_frames(events: Events, time_steps: int, size: tuple[int, int], split_by: SplitBy = "count") -> Counts:
    """Count events by frame, polarity and pixel; no event is lost.

    ``"count"`` gives every frame the same number of events, ``"time"`` the same number of microseconds; the
    last frame takes what the division leaves over, as in the field's papers.

    Args:
        events: at least one.
        time_steps: T.
        size: H and W of the sensor.
        split_by: how the recording is cut.

    Returns:
        ``[T, 2, H, W]``, darker first; uint8, or uint16 or uint32 where a count needs it.
    """
    count = len(events.t)
    height, width = size
    if not count:
        raise DataError("a recording without events")
    if events.x.max() >= width or events.y.max() >= height:
        raise DataError(
            f"event at x={events.x.max()}, y={events.y.max()} outside of a sensor of {height}x{width}"
            " (height x width)"
        )
    if split_by == "count":
        frame = np.arange(count) // max(1, count // time_steps)
    elif split_by == "time":
        length = max(1, int(events.t.max() - events.t.min()) // time_steps)
        frame = (events.t - events.t.min()) // length
    else:
        raise ValueError(f"split_by must be 'count' or 'time', got {split_by!r}")
    frame = np.minimum(frame, time_steps - 1)
    place = ((frame * 2 + events.p) * height + events.y) * width + events.x
    counts = np.bincount(place, minlength=time_steps * 2 * height * width)
    return counts.astype(np.min_scalar_type(counts.max())).reshape(time_steps, 2, height, width)


def _bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the recording {path}: {error}") from error
