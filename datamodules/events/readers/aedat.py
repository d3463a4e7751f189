"""AEDAT, the formats of iniVation's cameras and of jAER: versions 2.0, 3 and 4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from datamodules.events.readers.record import (
    EXTRA,
    Blocks,
    Events,
    Size,
    checked,
    first_bytes,
    joined,
    words_of,
)
from datamodules.loading.errors import DataError

_HEADER = 1 << 20  # bytes; no header is longer
_PACKET = np.dtype(
    [
        *(("type", "<u2"), ("source", "<u2"), ("size", "<u4"), ("offset", "<u4"), ("overflow", "<u4")),
        *(("capacity", "<u4"), ("number", "<u4"), ("valid", "<u4")),
    ]
)
_POLARITY = 1  # number of the packets of brightness changes
_END = b"#End Of ASCII Header\r\n"


def blocks_aedat2(path: Path) -> Blocks:
    """A DVS128 camera in AEDAT 2.0, as CIFAR10-DVS has it; see `read_aedat2`."""
    head = first_bytes(path, _HEADER)
    start = 0
    while head[start : start + 1] == b"#":
        end = head.find(b"\n", start)
        if end < 0:
            break
        line = head[start:end]
        if b"AEChip:" in line and b"DVS128" not in line:
            chip = line.partition(b"AEChip:")[2].strip().decode("ascii", "replace")
            raise DataError(
                f"{path}: AEDAT 2.0 of the chip {chip} has other addresses than DVS128, the only one known"
                " here; save it as AEDAT 4 or .npz"
            )
        start = end + 1
    for words in words_of(path, start, np.dtype((">u4", 2)), "AEDAT 2.0 file"):
        address, time = words.astype(np.int64).T
        first, second = (address >> 1) & 0x7F, (address >> 8) & 0x7F
        yield Events(127 - second, 127 - first, 1 - (address & 1), time)


def read_aedat2(path: str | Path) -> Events:
    """Read a recording of a DVS128 camera in AEDAT 2.0, as CIFAR10-DVS has them.

    Header lines begin with ``#``. Eight bytes an event, big-endian: address (polarity in bit 0, two times
    seven bits of coordinates) and microseconds. The image is turned upright and bright is 1, as the field
    reads these files, though not the script that came with them.
    """
    return joined(blocks_aedat2(Path(path)))


def blocks_aedat3(path: Path, stop: int | None = None) -> Blocks:
    """Brightness changes of AEDAT 3.1, packet by packet, up to microsecond `stop`; see `read_aedat3`."""
    head = first_bytes(path, _HEADER)
    end = head.find(_END)
    if not head.startswith(b"#!AER-DAT3") or end < 0:
        raise DataError(f"{path} is no AEDAT 3 file: it begins with {head[:12]!r}")
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(end + len(_END))
        while raw := file.read(_PACKET.itemsize):
            if len(raw) < _PACKET.itemsize:
                raise DataError(f"{path} is cut off: it ends {len(raw)} bytes into the header of a packet")
            header = np.frombuffer(raw, _PACKET)[0]
            length = int(header["size"]) * int(header["number"])
            at = file.tell()
            if at + length > size:
                raise DataError(f"{path} is cut off: {length} bytes should follow byte {at} of {size}")
            if header["type"] != _POLARITY:
                file.seek(length, 1)
                continue
            words = np.frombuffer(file.read(length), "<u4").reshape(-1, 2).astype(np.int64)
            data, time = words[:, 0], words[:, 1] + (int(header["overflow"]) << 31)
            if stop is not None and len(time) and time[0] >= stop:
                return
            yield Events((data >> 17) & 0x7FFF, (data >> 2) & 0x7FFF, (data >> 1) & 1, time)


def read_aedat3(path: str | Path, start: int | None = None, stop: int | None = None) -> Events:
    """Read brightness changes from AEDAT 3.1, as DVS128 Gesture has them.

    Packets of a 28-byte header and events of eight bytes, little-endian: 15 bits of x, 15 of y, polarity,
    a valid bit; then microseconds.

    Args:
        path: the file.
        start: first microsecond; from the beginning if missing.
        stop: microsecond behind the last; to the end if missing.
    """
    events = joined(blocks_aedat3(Path(path), stop))
    low = -1 if start is None else start
    kept = (events.t >= low) & (events.t < (np.inf if stop is None else stop))
    return Events(*(column[kept] for column in events))


def _decoder(path: Path) -> tuple[Any, dict[int, Any]]:
    try:
        import aedat
    except ImportError as error:
        raise DataError(f"{path}: AEDAT 4 needs the package aedat: {EXTRA}") from error
    first_bytes(path, 1)  # a missing file in our words
    try:
        decoder = aedat.Decoder(str(path))
        streams = {k: s for k, s in decoder.id_to_stream().items() if s.get("type") == "events"}
    except Exception as error:  # its Rust side raises what it likes
        raise DataError(f"{path} is no AEDAT 4 file, or was cut off: {error}") from error
    if not streams:
        raise DataError(f"{path} holds no stream of events")
    return decoder, streams


def blocks_aedat4(path: Path) -> Blocks:
    """Events of AEDAT 4, packet by packet, through the package aedat.

    Of a file of several cameras the first.
    """
    decoder, streams = _decoder(path)
    wanted = min(streams)
    packets = iter(decoder)
    while True:
        try:
            packet = next(packets, None)
        except Exception as error:
            raise DataError(f"{path} is damaged or cut off: {error}") from error
        if packet is None:
            return
        if "events" in packet and packet["stream_id"] == wanted:
            table = packet["events"]
            yield checked(
                path, table["x"], table["y"], table["on" if "on" in table.dtype.names else "p"], table["t"]
            )


def size_aedat4(path: Path) -> Size | None:
    """Height and width of the first camera."""
    _, streams = _decoder(path)
    stream = streams[min(streams)]
    return (int(stream["height"]), int(stream["width"])) if stream.get("height") else None


def size_dvs128(_: Path) -> Size | None:
    """128 x 128, the only camera of AEDAT 2.0 known here."""
    return 128, 128


def version(path: Path) -> int | None:
    """2, 3 or 4 by the first line; none if it is no AEDAT file."""
    head = first_bytes(path, 11)
    digit = head[9:10]
    if head[:9] == b"#!AER-DAT" and digit.isdigit():
        return int(digit)
    return 2 if head[:1] == b"#" else None
