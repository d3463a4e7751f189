"""Readers of every format: what was written comes back; what is damaged is refused in words."""

import builtins
from pathlib import Path

import numpy as np
import pytest
from oracles.event_files import (
    bursts,
    events,
    raw_head,
    write_aedat2,
    write_aedat3,
    write_dat,
    write_evt2,
    write_evt3,
    write_evt21,
    write_nmnist,
)

from datamodules import DataError
from datamodules.events.readers import (
    SUFFIXES,
    Events,
    event_blocks,
    in_order,
    inside,
    read_aedat3,
    read_events,
    sensor_size,
)

TINY = (
    Path(__file__).parent / "tiny.aedat4"
)  # 500 events of 346x260, written by dv-processing 2.0.4 with Zstandard
HD = (720, 1280)


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def write_h5(path, ev, place="CD/events"):
    h5py = pytest.importorskip("h5py", reason="no h5py: pip install 'fulgurite[events]'")
    table = np.zeros(len(ev.t), [("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
    for name in "xypt":
        table[name] = getattr(ev, name)
    with h5py.File(path, "w") as file:
        file[place] = table
        file.attrs["geometry"] = "1280x720"


def write_npz(path, ev):
    with path.open("wb") as file:
        np.savez(file, x=ev.x, y=ev.y, p=ev.p.astype(bool), t=ev.t)


def write_mat(path, ev):
    scipy_io = pytest.importorskip("scipy.io", reason="no scipy: pip install 'fulgurite[events]'")
    none = np.zeros_like(ev.t)
    scipy_io.savemat(
        path, {"out1": np.stack([ev.t, none, none, ev.x, ev.y, 2 * ev.p - 1], axis=1).astype(float)}
    )


CASES = {  # file name: how it is written, a sensor's side or sides, and what the file says of the sensor
    "a.bin": (write_nmnist, 34, None),
    "a.bs2": (write_nmnist, 34, None),
    "a2.aedat": (write_aedat2, 128, (128, 128)),
    "a3.aedat": (write_aedat3, 128, None),
    "a.dat": (write_dat, HD, HD),
    "a2.raw": (write_evt2, HD, HD),
    "a21.raw": (write_evt21, HD, HD),
    "a3.raw": (write_evt3, HD, HD),
    "a.h5": (write_h5, HD, HD),
    "a.npz": (write_npz, 34, None),
    "a.mat": (write_mat, 128, None),
}


@pytest.mark.parametrize("block", [1 << 16, 7])
@pytest.mark.parametrize("name", CASES)
def test_what_was_written_comes_back(name, block, tmp_path, monkeypatch):
    write, size, told = CASES[name]
    for module in ("record", "arrays"):
        monkeypatch.setattr(f"datamodules.events.readers.{module}.BLOCK", block)
    ev = events(333, size)
    write(tmp_path / name, ev)
    assert equal(read_events(tmp_path / name), ev)
    assert sum(len(b.t) for b in event_blocks(tmp_path / name)) == 333
    assert sensor_size(tmp_path / name) == told


@pytest.mark.parametrize("name", CASES)
def test_cut_off_files_are_refused(name, tmp_path):
    write, size, _ = CASES[name]
    write(tmp_path / name, events(333, size))
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-3])
    with pytest.raises(DataError, match=r"cut off"):
        read_events(tmp_path / name)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=name):
        read_events(tmp_path / name)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match="cannot read the recording"):
        read_events(tmp_path / name)


@pytest.mark.parametrize("block", [1 << 16, 50])
@pytest.mark.parametrize("write", [write_evt2, write_evt21, write_evt3])
def test_raw_files_keep_time_and_vectors_over_blocks(write, block, tmp_path, monkeypatch):
    """50 s of bursts: the 24 bits of EVT 3 overflow twice, vectors are split by the blocks."""
    monkeypatch.setattr("datamodules.events.readers.record.BLOCK", block)
    ev = bursts(120 if block == 50 else 400)
    write(tmp_path / "a.raw", ev)
    assert equal(read_events(tmp_path / "a.raw"), ev)


def test_evt3_by_hand(tmp_path):
    """The words of the format's description, one by one."""
    words = [
        0x2005,  # an event before any time is known
        0x8001,  # time 1 << 12
        0x6003,  # + 3
        0x000A,  # row 10
        0x2805,  # brighter at x = 5
        0x3064,  # base x = 100, darker
        0x4001 | 0x800,  # x = 100 and 111
        0x4002,  # x = 113, one on from the base that moved by 12
        0x5081,  # x = 124 and 131
        0xA123,  # a trigger
        0x8002,  # time 2 << 12, the lower bits are 0 until they are said
        0x2006,  # darker at x = 6
    ]
    (tmp_path / "a.raw").write_bytes(raw_head("3.0") + np.array(words, "<u2").tobytes())
    got = read_events(tmp_path / "a.raw")
    assert got.x.tolist() == [5, 100, 111, 113, 124, 131, 6]
    assert got.p.tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert got.t.tolist() == [4099] * 6 + [8192]
    assert set(got.y.tolist()) == {10}


def test_dat_of_version_1_has_narrower_fields(tmp_path):
    ev = events(50, (240, 304))
    write_dat(tmp_path / "a.dat", ev, version=1, height=240, width=304)
    assert equal(read_events(tmp_path / "a.dat"), ev)
    assert sensor_size(tmp_path / "a.dat") == (240, 304)


def test_aedat4_as_another_library_wrote_it():
    pytest.importorskip("aedat", reason="no aedat: pip install 'fulgurite[events]'")
    random = np.random.default_rng(5)
    t = 1_700_000_000_000_000 + np.sort(random.integers(0, 40_000, 500))
    x, y, p = random.integers(0, 346, 500), random.integers(0, 260, 500), random.integers(0, 2, 500)
    assert equal(read_events(TINY), (x, y, p, t))
    assert sensor_size(TINY) == (260, 346)


def test_a_cut_off_aedat4_is_refused(tmp_path):
    pytest.importorskip("aedat", reason="no aedat: pip install 'fulgurite[events]'")
    (tmp_path / "a.aedat4").write_bytes(TINY.read_bytes()[:2000])
    with pytest.raises(DataError, match="cut off"):
        read_events(tmp_path / "a.aedat4")


def test_aedat3_reads_between_two_times(tmp_path):
    ev = events(400, 128)
    write_aedat3(tmp_path / "a", ev)
    part = read_aedat3(tmp_path / "a", 100_000, 200_000)
    kept = (ev.t >= 100_000) & (ev.t < 200_000)
    assert 0 < kept.sum() < 400
    assert equal(part, [column[kept] for column in ev])


def test_a_chip_with_other_addresses_is_refused(tmp_path):
    write_aedat2(tmp_path / "a.aedat", events(5, 128), chip="eu.seebetter.ini.chips.davis.DAVIS240C")
    with pytest.raises(DataError, match="DAVIS240C has other addresses"):
        read_events(tmp_path / "a.aedat")


@pytest.mark.parametrize(
    "polarity", [lambda p: p, lambda p: 2 * p - 1, lambda p: p + 1, lambda p: p.astype(bool)]
)
@pytest.mark.parametrize(
    "names", [("x", "y", "p", "t"), ("xs", "ys", "ps", "ts"), ("X", "Y", "pol", "timestamp")]
)
def test_columns_as_people_name_them(names, polarity, tmp_path):
    ev = events(40, 34)
    columns = ev._replace(p=polarity(ev.p))
    np.savez(tmp_path / "a.npz", **dict(zip(names, columns, strict=True)))
    assert equal(read_events(tmp_path / "a.npz"), ev)


def test_structured_arrays_and_seconds(tmp_path):
    ev = events(40, 34)
    table = np.zeros(40, [("t", "f8"), ("x", "u2"), ("y", "u2"), ("p", "?")])
    for name in "xyp":
        table[name] = getattr(ev, name)
    table["t"] = ev.t / 1e6  # seconds, as fractions are
    np.save(tmp_path / "a.npy", table)
    assert equal(read_events(tmp_path / "a.npy"), ev)


def test_dsec_has_columns_and_an_offset(tmp_path):
    h5py = pytest.importorskip("h5py", reason="no h5py: pip install 'fulgurite[events]'")
    ev = events(40, 34)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in "xypt":
            file[f"events/{name}"] = getattr(ev, name)
        file["t_offset"] = 5_000_000
    assert equal(read_events(tmp_path / "a.h5"), ev._replace(t=ev.t + 5_000_000))


def test_a_struct_of_matlab(tmp_path):
    scipy_io = pytest.importorskip("scipy.io", reason="no scipy: pip install 'fulgurite[events]'")
    ev = events(40, 34)
    scipy_io.savemat(tmp_path / "a.mat", {"TD": {"x": ev.x, "y": ev.y, "p": ev.p + 1, "ts": ev.t}})
    assert equal(read_events(tmp_path / "a.mat"), ev)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": np.arange(3)}, r"a \(3,\); expected columns x, y, p and t"),
        ({"x": [1], "y": [1, 2], "p": [0], "t": [0]}, "have 1, 2, 1, 1 entries"),
        ({"x": [1], "y": [1], "p": [7], "t": [0]}, "polarities are 0 and 1"),
        ({"x": [1], "y": [1], "p": [1], "t": [np.nan]}, "times are NaN"),
        ({"x": [np.nan], "y": [1], "p": [1], "t": [0]}, "columns are NaN"),
    ],
)
def test_arrays_that_are_no_events(columns, message, tmp_path):
    np.savez(tmp_path / "a.npz", **columns)
    with pytest.raises(DataError, match=message):
        read_events(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.dat", b"no header", "no recording of a Prophesee camera"),
        ("a.raw", b"% evt 9.0\n% end\n1234", "names the encoding 'EVT9.0'"),
        ("a.aedat", b"#!AER-DAT7.0\r\n", "no AEDAT file of version 2, 3 or 4"),
        ("a.avi", b"", "no reader for '.avi'"),
        ("a.h5", b"no HDF5 at all", "cannot be read as HDF5"),
        ("a.npz", b"no zip at all", "cannot be read as NumPy's"),
    ],
)
def test_other_files_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_events(tmp_path / name)


@pytest.mark.parametrize(("name", "package"), [("a.aedat", "aedat"), ("a.h5", "h5py"), ("a.mat", "scipy")])
def test_a_missing_package_is_named_with_its_extra(name, package, tmp_path, monkeypatch):
    real = builtins.__import__

    def refuse(module, *args, **kwargs):
        if module.partition(".")[0] == package:
            raise ImportError(module)
        return real(module, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    (tmp_path / name).write_bytes(b"#!AER-DAT4.0\r\n" + bytes(600))
    with pytest.raises(DataError, match=rf"{package}: pip install 'fulgurite\[events\]'"):
        read_events(tmp_path / name)


def test_order_and_place():
    ev = events(100, 34)
    assert in_order(ev, "a.bin") is ev
    mixed = Events(*(np.concatenate([c[:50], c[51:60], c[50:51], c[60:]]) for c in ev))
    with pytest.warns(UserWarning, match=r"a\.bin: 1 events are earlier than the one before.*event 60"):
        sorted_ = in_order(mixed, "a.bin")
    assert equal(sorted_, ev)
    reset = ev._replace(t=np.concatenate([ev.t[:50] + 2_000_000, ev.t[50:]]))
    with pytest.raises(DataError, match=r"a\.bin: the clock goes back by .* at event 51"):
        in_order(reset, "a.bin")
    with pytest.raises(
        DataError, match=r"a\.bin: .* events lie outside of a sensor of 20x34 .*another sensor size"
    ):
        inside(ev, (20, 34), "a.bin")
    inside(ev, (34, 34))


def test_every_suffix_has_a_reader(tmp_path):
    for suffix in SUFFIXES:
        (tmp_path / f"a{suffix}").write_bytes(b"\x00")
        with pytest.raises(DataError, match=r"a\."):
            read_events(tmp_path / f"a{suffix}")
