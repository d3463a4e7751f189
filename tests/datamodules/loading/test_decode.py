"""Images of every mode and depth keep their values at every door."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import DataError, ImageFolderDataModule
from datamodules.loading.decode import as_bytes, eight_bit, open_image
from datamodules.transforms.fit import FitImage
from datamodules.transforms.image import ImagePipeline
from datamodules.transforms.tensor import TensorPipeline

SIDE = 32
RAMP = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE)  # mean 0.5
BYTES = np.rint(RAMP * 255).astype(np.uint8)
SIXTEEN = np.rint(RAMP * 65535).astype(np.uint16)


def big_endian(values):
    return Image.frombytes("I;16B", (SIDE, SIDE), values.astype(">u2").tobytes())


def png_of_sixteen_bit_colours():
    """Three equal channels of 16 bits, which Pillow reads but does not write."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = np.repeat(SIXTEEN[..., None], 3, axis=-1).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )


def pgm_of_sixteen_bits():
    return f"P5 {SIDE} {SIDE} 65535\n".encode() + SIXTEEN.astype(">u2").tobytes()


GREY = Image.fromarray(BYTES)
KINDS = {
    "L.png": GREY,
    "I;16.png": Image.fromarray(SIXTEEN),
    "I;16.tif": Image.fromarray(SIXTEEN),
    "I;16B.tif": big_endian(SIXTEEN),
    "I of 8 bits.tif": Image.fromarray(BYTES.astype(np.int32)),
    "I of 16 bits.tif": Image.fromarray(SIXTEEN.astype(np.int32)),
    "I.png": Image.fromarray(SIXTEEN.astype(np.int32)),
    "F of 1.tif": Image.fromarray(RAMP.astype(np.float32)),
    "F of 8 bits.tif": Image.fromarray((RAMP * 255).astype(np.float32)),
    "F of 16 bits.tif": Image.fromarray((RAMP * 65535).astype(np.float32)),
    "LA.png": GREY.convert("LA"),
    "P.png": GREY.convert("P"),
    "P.gif": GREY.convert("P"),
    "RGB.png": GREY.convert("RGB"),
    "RGBA.png": GREY.convert("RGBA"),
    "CMYK.tif": GREY.convert("CMYK"),
    "CMYK.jpg": GREY.convert("CMYK"),
    "colours of 16 bits.png": png_of_sixteen_bit_colours(),
    "16 bits.pgm": pgm_of_sixteen_bits(),
}


def write(path, image):
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path)
    return path


@pytest.mark.filterwarnings("ignore:Saving I mode")
@pytest.mark.parametrize("name", KINDS)
def test_a_ramp_of_every_mode_is_a_ramp_at_every_door(name, tmp_path):
    """The values are known: a ramp from black to white, within a level of 255 (JPEG: a few)."""
    in_chans = 1 + 2 * (len(name) % 2)  # grey for some, colour for the others
    places = [tmp_path / place for place in ("train/a", "train/b", "val/a", "val/b")]
    for place in places:
        place.mkdir(parents=True)
        path = write(place / f"x.{name.rpartition('.')[2]}", KINDS[name])
    want = torch.from_numpy(RAMP).float().expand(in_chans, -1, -1)
    near = {"rtol": 0, "atol": 0.03 if name.endswith(".jpg") else 0.75 / 255}
    plain = {"mean": [0.0] * in_chans, "std": [1.0] * in_chans}
    options = {"in_chans": in_chans, "num_workers": 0, "batch_size": 1, "drop_last": False, **plain}
    for more in ({}, {"cache": True}, {"style": "imagenet", "image_size": SIDE, "crop_pct": 1.0}):
        data = ImageFolderDataModule(str(tmp_path), predict_dir=str(path), **options, **more)
        data.prepare_data()
        data.setup()
        loaders = [data.val_dataloader(), data.predict_dataloader(), data.calibration_dataloader()]
        for loader in loaders:
            torch.testing.assert_close(next(iter(loader))[0][0], want, **near)
    opened = Image.open(path)
    pipeline = ImagePipeline(size=(SIDE, SIDE), crop_pct=1.0, **plain)
    for transform in (FitImage((SIDE, SIDE), interpolation="bicubic", **plain), pipeline):
        torch.testing.assert_close(transform(opened), want, **near)


def test_one_bit_and_transparency():
    black = Image.new("1", (4, 4), 0)
    black.putpixel((0, 0), 1)
    assert np.asarray(eight_bit(black, 1)).tolist() == [[255, 0, 0, 0], *[[0] * 4] * 3]
    for mode, clear in (("LA", (0, 0)), ("RGBA", (0, 0, 0, 0))):
        assert np.asarray(eight_bit(Image.new(mode, (2, 2), clear), 3)).min() == 255  # as on a page
    indexed = Image.new("P", (2, 2), 0)
    indexed.putpalette([0, 0, 0, 200, 200, 200])
    indexed.info["transparency"] = 0
    assert np.asarray(eight_bit(indexed, 1)).min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_exif_says(orientation, tmp_path):
    """The stored rows of an upright image, by the table of the EXIF standard: 0th row and 0th column."""
    upright = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for suffix in ("png", "tif"):
        path = tmp_path / f"x.{suffix}"
        Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
        assert np.asarray(open_image(path, 1)).tolist() == upright.tolist()


@pytest.mark.parametrize("values", [[-1.0, 0.5], [0.0, 70000.0], [0.0, float("nan")], [0.0, float("inf")]])
def test_values_without_a_known_scale_are_refused(values, tmp_path):
    Image.fromarray(np.array([values], dtype=np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match=r"x\.tif: its values go from"):
        open_image(tmp_path / "x.tif")


def test_arrays_of_every_type_keep_their_values():
    pipeline = TensorPipeline(mean=(0.0,), std=(1.0,))
    want = torch.from_numpy(RAMP).float()[None, None]
    for array in (BYTES, SIXTEEN, RAMP, RAMP.astype(np.float32)):
        found = pipeline(torch.from_numpy(array)[None, None])
        torch.testing.assert_close(found, want, rtol=0, atol=0.51 / 255)
    assert as_bytes(torch.tensor([True, False])).tolist() == [255, 0]
    with pytest.raises(ValueError, match="floats of 0 to 1, got 0 to 255"):
        pipeline(torch.from_numpy(RAMP * 255)[None, None])
    with pytest.raises(ValueError, match=r"got torch\.int64"):
        pipeline(torch.from_numpy(BYTES.astype(np.int64))[None, None])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_hide_an_image():
    file = io.BytesIO()
    GREY.save(file, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with Image.open(file) as image:
        assert eight_bit(image, 1).size == (SIDE, SIDE)
