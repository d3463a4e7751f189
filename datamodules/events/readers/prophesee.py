"""Files of Prophesee's cameras: ``.dat`` (also of ATIS: N-CARS) and ``.raw``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from datamodules.events.readers.evt import blocks_evt2, blocks_evt3, blocks_evt21
from datamodules.events.readers.record import Blocks, Events, Size, first_bytes, words_of
from datamodules.loading.errors import DataError

_HEADER = 1 << 16
_EVENT_TYPES = (0x00, 0x0C)  # two-dimensional events, and contrast detections
_ENCODINGS = {"2": ("<u4", blocks_evt2), "21": ("<u8", blocks_evt21), "3": ("<u2", blocks_evt3)}


def header(path: Path) -> tuple[dict[str, str], int]:
    """The lines ``% key value`` by key in lower case, and where the data begin."""
    head = first_bytes(path, _HEADER)
    start, found = 0, {}
    while head[start : start + 1] == b"%":
        end = head.find(b"\n", start)
        if end < 0:
            break
        line = head[start + 1 : end].decode("ascii", "replace").strip()
        start = end + 1
        key, _, value = line.partition(" ")
        found[key.lower()] = value.strip()
        if key.lower() == "end":
            break
    if not found:
        raise DataError(f"{path} is no recording of a Prophesee camera: it has no header of lines with %")
    return found, start


def size_prophesee(path: Path) -> Size | None:
    """Height and width as the header has them, in any of its wordings."""
    found, _ = header(path)
    if "height" in found and "width" in found:
        return int(found["height"]), int(found["width"])
    if match := re.fullmatch(r"(\d+)x(\d+)", found.get("geometry", "")):
        return int(match[2]), int(match[1])
    named = dict(re.findall(r"(height|width)=(\d+)", found.get("format", "")))
    return (int(named["height"]), int(named["width"])) if len(named) == 2 else None


def blocks_dat(path: Path) -> Blocks:
    """``.dat``: eight bytes an event, little-endian: microseconds, then x, y and polarity.

    14, 14 and 4 bits; version 1 has 9, 8 and 1. The clock's 32 bits overflow after 71 minutes.
    """
    found, start = header(path)
    kind = first_bytes(path, start + 2)[start:]
    if len(kind) < 2 or kind[0] not in _EVENT_TYPES or kind[1] != 8:
        raise DataError(f"{path} is no .dat file of events: type and size of its records are {list(kind)}")
    old = found.get("version", "2") == "1"
    for words in words_of(path, start + 2, np.dtype(("<u4", 2)), ".dat file of events"):
        time, data = words.astype(np.int64).T
        if old:
            yield Events(data & 0x1FF, (data >> 9) & 0xFF, (data >> 17) & 1, time)
        else:
            yield Events(data & 0x3FFF, (data >> 14) & 0x3FFF, (data >> 28) & 1, time)


def blocks_raw(path: Path) -> Blocks:
    """``.raw`` in EVT 2.0, 2.1 or 3.0, whichever the header names."""
    found, start = header(path)
    named = found.get("format", "").partition(";")[0].upper() or "EVT" + found.get("evt", "")
    version = named.removeprefix("EVT").replace(".", "").removesuffix("0")
    if version not in _ENCODINGS:
        raise DataError(f"{path}: its header names the encoding {named!r}; known are EVT 2.0, 2.1 and 3.0")
    dtype, decode = _ENCODINGS[version]
    yield from decode(words_of(path, start, dtype, f".raw file in EVT {version}"))
