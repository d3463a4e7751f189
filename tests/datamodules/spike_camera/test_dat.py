"""Streams on disk, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import DataError
from datamodules.spike_camera import DatFile, write_dat


def stream(T=5, H=4, W=8, seed=0):
    return np.random.default_rng(seed).integers(0, 2, (T, H, W), dtype=np.uint8)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 17), st.booleans())
def test_round_trip(tmp_path_factory, T, H, W, flip):
    path = tmp_path_factory.mktemp("dat") / "a.dat"
    spikes = stream(T, H, W)
    write_dat(path, spikes, flip)
    read = DatFile(path, height=H, width=W, flip=flip)
    assert read.shape == spikes.shape
    assert path.stat().st_size == T * ((H * W + 7) // 8)
    assert np.array_equal(read[:], spikes)
    assert np.array_equal(read[T - 1], spikes[-1])


def test_first_pixel_lies_in_the_last_row_of_the_file(tmp_path):
    spikes = np.zeros((2, 3, 16), dtype=np.uint8)
    spikes[1, 0, 0] = 1  # second frame, upper left
    write_dat(tmp_path / "a.dat", spikes)
    content = (tmp_path / "a.dat").read_bytes()
    assert [i for i, b in enumerate(content) if b] == [6 + 2 * 2]  # frames of 6 bytes, rows of 2
    assert content[10] == 1  # least significant bit


def test_it_is_mapped_and_not_loaded(tmp_path):
    spikes = stream(200)
    write_dat(tmp_path / "a.dat", spikes)
    read = DatFile(tmp_path / "a.dat", height=4, width=8)
    assert isinstance(read._packed.base, np.memmap)
    assert np.array_equal(read.central(177), spikes[12:189])  # 100 - 88 to 100 + 88
    assert read.central(200).shape == read.shape
    with pytest.raises(DataError, match=r"a.dat has 200 frames, 201 are needed"):
        read.central(201)


@pytest.mark.parametrize(("height", "width"), [(4, 8), (5, 8), (4, 24)])
def test_a_size_that_does_not_fit(tmp_path, height, width):
    path = tmp_path / "cut.dat"
    write_dat(path, stream())
    path.write_bytes(path.read_bytes()[:-1])
    each = height * width // 8
    with pytest.raises(DataError, match=rf"19 bytes, which is no whole number of frames of {each} bytes"):
        DatFile(path, height=height, width=width)


def test_what_is_refused(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        DatFile(tmp_path / "none.dat", height=4, width=8)
    (tmp_path / "empty.dat").touch()
    with pytest.raises(DataError, match="0 bytes"):
        DatFile(tmp_path / "empty.dat", height=4, width=8)
    with pytest.raises(ValueError, match="at least 1, got 0 and 8"):
        DatFile(tmp_path / "none.dat", height=0, width=8)
    with pytest.raises(DataError, match="spikes are 0 or 1, got values up to 2"):
        write_dat(tmp_path / "a.dat", 2 * np.ones((1, 2, 2)))
    with pytest.raises(DataError, match=r"expected spikes \[T, H, W\]"):
        write_dat(tmp_path / "a.dat", np.ones((2, 2)))
    assert not (tmp_path / "a.dat").exists()


def test_a_file_that_is_there_stays_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.dat"
    write_dat(path, stream())
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datamodules.spike_camera.dat.os.replace", full)
    with pytest.raises(DataError, match=r"could not be written: .*No space left"):
        write_dat(path, stream(seed=1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
