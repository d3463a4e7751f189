"""Dropped files: only the formats that the page names, by content, and none that would fill the memory."""

from __future__ import annotations

import base64
import io
import os
import random
import stat
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from cli.demo.opening import FORMATS, MOST_PIXELS, UnreadableImageError, open_dropped, open_image

PIXELS = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) * 5)


def encoded(kind, image=PIXELS, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["x.png", "x.eps", "x"])
def test_the_named_formats_open_by_content(kind, name, tmp_path):
    (tmp_path / name).write_bytes(encoded(kind))
    image = open_image(tmp_path / name)
    assert image.size == (8, 6)
    lossless = kind not in ("JPEG", "WEBP")
    if lossless:
        assert np.array_equal(np.asarray(image.convert("L")), np.asarray(PIXELS))
    url = f"data:image/png;base64,{base64.b64encode(encoded(kind)).decode()}"
    assert open_dropped(SimpleNamespace(url=url, path=None)).size == (8, 6)
    assert open_dropped(SimpleNamespace(url=None, path=str(tmp_path / name))).size == (8, 6)
    assert open_dropped(None) is None


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
def test_turned_tiff_files_are_upright(mode, tmp_path):
    """Pillow maps plain ones into memory if it is given their name, and gets turned ones wrong."""
    values = np.arange(48, dtype=np.uint16).reshape(6, 8) * 5
    upright = (
        Image.fromarray(values) if mode == "I;16" else Image.fromarray(values.astype(np.uint8)).convert(mode)
    )
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right makes it upright
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "x.tiff", exif=exif)
    for source in (tmp_path / "x.tiff", io.BytesIO((tmp_path / "x.tiff").read_bytes())):
        shown = ImageOps.exif_transpose(open_image(source))
        assert np.array_equal(np.asarray(shown), np.asarray(upright))


@pytest.mark.parametrize("name", ["x.png", "x.eps", "x.jpg"])
def test_no_program_is_started(name, tmp_path, monkeypatch):
    """Pillow hands PostScript to the program ``gs``, whatever the file is called."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\necho called >> {tmp_path / 'called'}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / name).write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(anything) run\nshowpage\n"
    )
    with pytest.raises(UnreadableImageError, match="no image that can be opened"):
        open_image(tmp_path / name)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("kind", ["PPM", "ICO", "TGA", "PCX", "SGI", "JPEG2000", "PDF", "EPS", "DDS", "ICNS"])
def test_other_formats_are_refused(kind, tmp_path):
    (tmp_path / "x.png").write_bytes(encoded(kind, PIXELS.convert("RGB").resize((64, 64))))
    with pytest.raises(UnreadableImageError, match="PNG, JPEG, WebP, GIF, BMP and TIFF can"):
        open_image(tmp_path / "x.png")


def huge_png(side):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))


def huge_webp(kind, side):
    if kind == b"VP8X":
        data = bytes(4) + (side - 1).to_bytes(3, "little") * 2
    elif kind == b"VP8L":
        data = b"\x2f" + ((side - 1) | (side - 1) << 14).to_bytes(4, "little") + bytes(5)
    else:
        data = bytes(3) + b"\x9d\x01\x2a" + side.to_bytes(2, "little") * 2
    chunk = kind + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def huge_bmp(side):
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def huge_gif(side):
    screen = b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02\x4c\x01\x00;"


@pytest.mark.parametrize(
    "content",
    [
        huge_png(13_000),
        huge_png(2**30),
        huge_bmp(13_000),
        huge_gif(65_535),
        *(huge_webp(kind, 16_383) for kind in (b"VP8 ", b"VP8L", b"VP8X")),
        encoded("JPEG", Image.new("L", (8, 8))).replace(b"\x00\x08\x00\x08", b"\xff\x00\xff\x00", 1),
        encoded("TIFF", Image.new("1", (20_000, 20_000)), compression="group4"),
    ],
)
def test_huge_images_are_refused_before_memory_is_taken(content, tmp_path):
    import tracemalloc

    (tmp_path / "x.png").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(UnreadableImageError, match="too large"):
        open_image(tmp_path / "x.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST_PIXELS / 10


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FORMATS)
def test_broken_files_have_one_kind_of_error(kind, tmp_path):
    """Cuts and flips, seeded; an image, or the error of this module, and nothing else."""
    rng = random.Random(kind)
    whole = encoded(kind)
    refused = 0
    for _ in range(150):
        broken = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.randrange(4)):
            if broken:
                broken[rng.randrange(len(broken))] = rng.randrange(256)
        (tmp_path / "x").write_bytes(bytes(broken))
        try:
            image = open_image(tmp_path / "x")
        except UnreadableImageError:
            refused += 1
        else:
            assert image.width * image.height <= MOST_PIXELS
    assert refused > 10
