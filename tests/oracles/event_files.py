"""Recordings in the published formats, written byte by byte as the formats' descriptions say."""

import struct

import numpy as np

from datamodules.events.readers import Events


def events(count, size, seed=0, start=0, length=300_000):
    """Random events on a sensor of `size`, one side or height and width, sorted by time."""
    random = np.random.default_rng(seed)
    height, width = (size, size) if isinstance(size, int) else size
    t = start + np.sort(random.integers(0, length, count))
    return Events(
        random.integers(0, width, count), random.integers(0, height, count), random.integers(0, 2, count), t
    )


def rows_of(ev):
    return zip(*(column.tolist() for column in ev), strict=True)


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_nmnist(path, ev):
    _write(path, b"".join(bytes([x, y]) + (p << 23 | t).to_bytes(3, "big") for x, y, p, t in rows_of(ev)))


def write_aedat2(path, ev, chip="eu.seebetter.ini.chips.DVS128"):
    head = b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n# AEChip: " + chip.encode() + b"\r\n"
    rows = (struct.pack(">II", (127 - x) << 8 | (127 - y) << 1 | (1 - p), t) for x, y, p, t in rows_of(ev))
    _write(path, head + b"".join(rows))


def write_aedat3(path, ev, packet=50):
    out = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#End Of ASCII Header\r\n"
    out += struct.pack("<HHIIIIII", 0, 1, 8, 4, 0, 1, 1, 1) + bytes(8)  # a special event, to be skipped
    rows = list(rows_of(ev))
    for i in range(0, len(rows), packet):
        part = rows[i : i + packet]
        out += struct.pack("<HHIIIIII", 1, 1, 8, 4, 0, len(part), len(part), len(part))
        out += b"".join(struct.pack("<II", x << 17 | y << 2 | p << 1 | 1, t) for x, y, p, t in part)
    _write(path, out)


def write_dat(path, ev, version=2, height=720, width=1280):
    head = f"% Data file of CD events\n% Version {version}\n% Height {height}\n% Width {width}\n".encode()
    places = (0, 14, 28) if version == 2 else (0, 9, 17)
    rows = (
        struct.pack("<II", t, x << places[0] | y << places[1] | p << places[2]) for x, y, p, t in rows_of(ev)
    )
    _write(path, head + bytes([0x0C, 8]) + b"".join(rows))


def raw_head(version, height=720, width=1280):
    return f"% evt {version}\n% format EVT{version[0]};height={height};width={width}\n% end\n".encode()


def write_evt2(path, ev):
    out, high = raw_head("2.0"), None
    for x, y, p, t in rows_of(ev):
        if t >> 6 != high:
            high = t >> 6
            out += struct.pack("<I", 0x8 << 28 | high)
            out += struct.pack("<I", 0xA << 28 | 0x101)  # a trigger, to be skipped
        out += struct.pack("<I", p << 28 | (t & 0x3F) << 22 | x << 11 | y)
    _write(path, out)


def write_evt21(path, ev):
    """Every event in a word of its own, at one of the lanes of a word that begins up to 31 pixels before."""
    out, high = raw_head("2.1", 720, 1280).replace(b"EVT2;", b"EVT21;"), None
    for x, y, p, t in rows_of(ev):
        if t >> 6 != high:
            high = t >> 6
            out += struct.pack("<Q", 0x8 << 60 | high << 32)
        base = x // 32 * 32
        out += struct.pack("<Q", p << 60 | (t & 0x3F) << 54 | base << 43 | y << 32 | 1 << (x - base))
    _write(path, out)


def write_evt3(path, ev):
    """Single events, and runs of one time, row and polarity as vectors of 12, 12 and 8 pixels."""
    words, time, row = [], None, None
    rows, i = list(rows_of(ev)), 0
    while i < len(rows):
        x, y, p, t = rows[i]
        if time is None or t >> 12 != time >> 12:
            words.append(0x8 << 12 | (t >> 12) & 0xFFF)
        if t != time:
            words.append(0x6 << 12 | t & 0xFFF)
        if y != row:
            words.append(y)
        time, row = t, y
        run = [x]
        while i + len(run) < len(rows):
            xn, *rest = rows[i + len(run)]
            if rest != [y, p, t] or not run[-1] < xn < x + 32:
                break
            run.append(xn)
        if len(run) == 1:
            words.append(0x2 << 12 | p << 11 | x)
        else:
            mask = sum(1 << (xn - x) for xn in run)
            words.append(0x3 << 12 | p << 11 | x)
            words += [0x4 << 12 | mask & 0xFFF, 0x4 << 12 | mask >> 12 & 0xFFF, 0x5 << 12 | mask >> 24]
        i += len(run)
    _write(path, raw_head("3.0") + np.array(words, "<u2").tobytes())


def bursts(count=400, seed=3):
    """Events of which many share time, row and polarity, over more than one loop of 24 bits of time."""
    random = np.random.default_rng(seed)
    columns = []
    for t in np.sort(random.integers(0, 50_000_000, count)):
        base, y, p = int(random.integers(0, 1200)), int(random.integers(0, 720)), int(random.integers(0, 2))
        xs = base + np.sort(random.choice(32, int(random.integers(1, 20)), replace=False))
        columns.append(np.stack([xs, np.full_like(xs, y), np.full_like(xs, p), np.full_like(xs, t)]))
    # a camera says the time's upper bits every 4 ms, also without events; here an event stands for it
    quiet = np.arange(0, 50_000_000, 4096)
    columns.append(np.stack([np.full_like(quiet, 7), np.full_like(quiet, 5), np.zeros_like(quiet), quiet]))
    table = np.concatenate(columns, axis=1).astype(np.int64)
    order = np.argsort(table[3], kind="stable")
    return Events(*table[:, order])
