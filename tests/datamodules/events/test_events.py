"""Sets of event recordings, and the frames made of them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.event_files import events, rows_of, write_aedat2, write_aedat3, write_dat, write_nmnist

from datamodules import (
    CIFAR10DVSDataModule,
    DataError,
    DVSGestureDataModule,
    EventFolderDataModule,
    NMNISTDataModule,
)
from datamodules.events.frames import to_frames
from datamodules.events.readers import Events, read_aedat3, read_nmnist
from datamodules.images.cifar import CIFAR10_CLASSES
from datamodules.loading.random import sample_keys
from datamodules.transforms.augmentation import Augmentation
from datamodules.transforms.events import EventPipeline


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.integers(1, 12), st.sampled_from(["count", "time"]), st.integers(0, 99))
def test_frames_lose_no_event(count, T, split_by, seed):
    ev = events(count, 8, seed)
    frames = to_frames(ev, T, (8, 8), split_by)
    assert frames.shape == (T, 2, 8, 8)
    assert frames.sum() == count
    assert frames.sum(0)[1].sum() == ev.p.sum()
    naive = np.zeros_like(frames)
    for i in range(count):
        if split_by == "count":
            frame = i // max(1, count // T)
        else:
            frame = (ev.t[i] - ev.t[0]) // max(1, (ev.t[-1] - ev.t[0]) // T)
        naive[min(frame, T - 1), ev.p[i], ev.y[i], ev.x[i]] += 1
    assert np.array_equal(frames, naive)


def hot(count, ordinary=50, size=34):
    """Events of which `count` are those of one pixel."""
    ev = events(count + ordinary, size)
    for column, value in ((ev.x, 3), (ev.y, 4), (ev.p, 1)):
        column[:count] = value
    return ev


@pytest.mark.parametrize("split_by", ["count", "time"])
@pytest.mark.parametrize(
    ("count", "dtype"), [(200, np.uint8), (700, np.uint16), (70_000, np.uint32)], ids=str
)
def test_frames_are_as_wide_as_a_hot_pixel_needs(count, dtype, split_by):
    ev = hot(count)
    frames = to_frames(ev, 1, (34, 34), split_by)
    assert frames.dtype == dtype
    assert int(frames[0, 1, 4, 3]) == sum(p == 1 and x == 3 and y == 4 for x, y, p, _ in rows_of(ev))
    assert frames.sum(dtype=np.int64) == count + 50


def test_frames_refuse_events_outside():
    with pytest.raises(DataError, match="outside of a sensor of 4x8"):
        to_frames(events(50, 8), 2, (4, 8))
    below = events(50, 8)._replace(x=np.full(50, -1))
    with pytest.raises(DataError, match="x=-1"):
        to_frames(below, 2, (8, 8))
    with pytest.raises(DataError, match="polarities are 0 and 1, not 2 to 2"):
        to_frames(events(50, 8)._replace(p=np.full(50, 2)), 2, (8, 8))
    with pytest.raises(ValueError, match="'count' or 'time'"):
        to_frames(events(50, 8), 2, (8, 8), "space")


def test_columns_of_any_layout_are_counted():
    ev = events(60, 8)
    strided = Events(*(np.repeat(column, 2).astype(np.int32)[::2] for column in ev))
    assert np.array_equal(to_frames(strided, 3, (8, 8), "time"), to_frames(ev, 3, (8, 8), "time"))


# -- sets ------------------------------------------------------------------------------------------


@pytest.fixture
def nmnist(tmp_path):
    for split, count in (("Train", 3), ("Test", 1)):
        for digit in range(10):
            for i in range(count):
                ev = events(40 + digit, 34, seed=digit * 7 + i)
                write_nmnist(tmp_path / "set" / split / str(digit) / f"{i:05d}.bin", ev)
    return tmp_path / "set"


def ready(data):
    data.prepare_data()
    data.setup()
    return data


def test_nmnist_as_published(nmnist):
    data = ready(NMNISTDataModule(str(nmnist), time_steps=4, val="test", batch_size=5, num_workers=0))
    assert (len(data.train_set), len(data.test_set)) == (30, 10)
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == (5, 4, 2, 34, 34)
    assert x.dtype == torch.float32
    assert x.sum(dim=(1, 2, 3, 4)).tolist() == (40 + y).tolist()
    assert "event counts" in data.describe()
    again = NMNISTDataModule(str(nmnist), time_steps=4, split_by="time", val=0.34)
    assert len(ready(again).val_set) == 10
    assert len(list(nmnist.parent.glob("set-decoded/*.npy"))) == 4


@pytest.mark.parametrize("split_by", ["count", "time"])
@pytest.mark.parametrize("busiest", [9, 700, 70_000])
def test_no_set_loses_events_of_a_hot_pixel(nmnist, split_by, busiest, monkeypatch):
    """Training, test, calibration and prediction hold every event; the busiest recording decides the type."""
    monkeypatch.setattr("datamodules.loading.cache._CHUNK", 4)
    counts = dict(zip(("00000", "00001", "00002"), (9, busiest, 300), strict=True))
    for digit in range(10):
        for name, count in counts.items():
            write_nmnist(nmnist / "Train" / str(digit) / f"{name}.bin", hot(count if digit == 7 else 9, 0))
    options = {"time_steps": 2, "batch_size": 7, "num_workers": 0, "split_by": split_by, "drop_last": False}
    options["val"] = "test"  # nothing held out
    data = ready(NMNISTDataModule(str(nmnist), predict_dir=str(nmnist / "Train" / "7"), **options))
    total = 27 * 9 + sum(counts.values())
    for loader in (data.train_dataloader(), data.calibration_dataloader()):
        assert sum(int(x.sum(dtype=torch.float64)) for x, _ in loader) == total
    predicted = [x for x, _ in data.predict_dataloader()]
    assert [int(n) for x in predicted for n in x.sum((1, 2, 3, 4))] == list(counts.values())
    widest = 300 if busiest < 300 else busiest
    stored = np.load(next(nmnist.parent.glob("set-decoded/train-*.npy")), mmap_mode="r")
    assert stored.dtype == np.min_scalar_type(int(stored.max()))  # no wider than needed
    assert widest // 2 <= stored.max() <= widest


def test_crops_and_flips_of_busy_frames_keep_counts():
    frames = torch.from_numpy(np.full((2, 3, 2, 8, 8), 60_000, dtype=np.uint16))
    moved = EventPipeline(augmentation=Augmentation(crop_padding=2, flip=0.5))(
        frames, sample_keys(0, 0, [0, 1])
    )
    assert set(moved.unique().tolist()) <= {0.0, 60_000.0}
    assert (moved == 60_000).any()


def test_nmnist_as_a_list(tmp_path):
    for i in range(6):
        write_nmnist(tmp_path / f"{i}.bs2", events(30, 34, i))
    (tmp_path / "train4.txt").write_text("#sample #class\n0 3\n1 4\n2 3\n3 9\n")
    (tmp_path / "test2.txt").write_text("#sample #class\n4 0\n5 1\n")
    options = {"val": "test", "batch_size": 2, "num_workers": 0}
    data = ready(NMNISTDataModule(str(tmp_path), cache_dir=str(tmp_path / "c"), **options))
    assert data.train_set.targets.tolist() == [3, 4, 3, 9]
    assert data.test_set.targets.tolist() == [0, 1]
    (tmp_path / "test2.txt").write_text("7 0\n")
    with pytest.raises(DataError, match=r"line 1: no recording .*7\.bs2"):
        NMNISTDataModule(str(tmp_path)).prepare_data()
    (tmp_path / "test2.txt").write_text("4 x\n")
    with pytest.raises(DataError, match="a file and a digit"):
        NMNISTDataModule(str(tmp_path)).prepare_data()


def test_cifar10_dvs(tmp_path):
    for label, name in enumerate(CIFAR10_CLASSES):
        for i in range(10):
            write_aedat2(
                tmp_path / "set" / name / f"cifar10_{name}_{i}.aedat", events(60, 128, label * 10 + i)
            )
    options = {"time_steps": 2, "batch_size": 4, "num_workers": 0, "image_size": 32}
    data = CIFAR10DVSDataModule(
        str(tmp_path / "set"), sum_channel=True, event_augment=True, flip=0.5, **options
    )
    ready(data)
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (80, 10, 10)
    assert sorted(data.test_set.targets.tolist()) == list(range(10))
    assert data.input_size == (3, 32, 32)
    x, _ = next(iter(data.train_dataloader()))
    assert x.shape == (4, 2, 3, 32, 32)
    assert torch.equal(x[:, :, 2], x[:, :, 0] + x[:, :, 1])
    assert "roll, rotation or cutout" in repr(data.train_transform)


def test_dvs_gesture(tmp_path):
    folder = tmp_path / "DvsGesture"
    for user in ("user01_led", "user02_lab", "user24_led"):
        write_aedat3(folder / f"{user}.aedat", events(500, 128, len(user)))
        rows = "".join(f"{label},{label * 20_000},{label * 20_000 + 15_000}\n" for label in range(1, 12))
        (folder / f"{user}_labels.csv").write_text(f"class,startTime_usec,endTime_usec\n{rows}")
    (folder / "trials_to_train.txt").write_text("user01_led.aedat\nuser02_lab.aedat\n")
    (folder / "trials_to_test.txt").write_text("user24_led.aedat\n\n")
    options = {"time_steps": 2, "val": "test", "batch_size": 4, "num_workers": 0}
    data = ready(DVSGestureDataModule(str(tmp_path), **options))
    assert (len(data.train_set), len(data.test_set)) == (22, 11)
    assert data.test_set.targets.tolist() == list(range(11))
    whole = read_aedat3(folder / "user24_led.aedat")
    x, _ = data.test_set[3]
    assert x.sum() == ((whole.t >= 80_000) & (whole.t < 95_000)).sum()
    (folder / "user24_led_labels.csv").write_text("class,startTime_usec,endTime_usec\n12,0,9\n")
    with pytest.raises(DataError, match="classes go from 1 to 11, got 12"):
        DVSGestureDataModule(str(tmp_path)).prepare_data()


def test_folders_of_any_format(tmp_path):
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("background", "cars")):
            for i in range(count):
                path = tmp_path / "set" / split / name / f"{i}.dat"
                write_dat(path, events(60, (100, 120), seed=10 * label + i), height=100, width=120)
    options = {"time_steps": 2, "val": "test", "batch_size": 4, "num_workers": 0}
    data = ready(EventFolderDataModule(str(tmp_path / "set"), image_size=32, **options))
    assert (data.num_classes, data.class_names, data.native_size) == (2, ("background", "cars"), (100, 120))
    assert (len(data.train_set), data.test_set.targets.tolist()) == (8, [0, 0, 1, 1])
    assert next(iter(data.train_dataloader()))[0].shape == (4, 2, 2, 32, 32)
    small = EventFolderDataModule(str(tmp_path / "set"), sensor_size=(50, 120), **options)
    with pytest.raises(DataError, match=r"\.dat: .* outside of a sensor of 50x120 .*: another sensor size"):
        small.prepare_data()
    write_nmnist(tmp_path / "other" / "train" / "a" / "0.bin", events(9, 34))
    with pytest.raises(DataError, match=r"0\.bin does not say how large the sensor is; set sensor_size"):
        EventFolderDataModule(str(tmp_path / "other")).native_size  # noqa: B018
    with pytest.raises(DataError, match=r"no such folder: .*train"):
        EventFolderDataModule(str(tmp_path / "nothing"))


def test_recordings_out_of_order_are_sorted_with_one_warning(nmnist, tmp_path):
    for digit in (3, 7):
        path = nmnist / "Train" / str(digit) / "00001.bin"
        raw = path.read_bytes()
        path.write_bytes(raw[5:25] + raw[:5] + raw[25:])
    options = {"time_steps": 4, "val": "test", "num_workers": 0}
    with pytest.warns(UserWarning, match="1 events are earlier") as warned:
        mixed = ready(NMNISTDataModule(str(nmnist), cache_dir=str(tmp_path / "c"), **options))
    assert len([w for w in warned if "earlier" in str(w.message)]) == 1
    for digit in (3, 7):
        write_nmnist(nmnist / "Train" / str(digit) / "00001.bin", events(40 + digit, 34, seed=digit * 7 + 1))
    again = ready(NMNISTDataModule(str(nmnist), cache_dir=str(tmp_path / "d"), **options))
    assert np.array_equal(mixed.train_set.images, again.train_set.images)


@pytest.mark.parametrize("cls", [NMNISTDataModule, CIFAR10DVSDataModule, DVSGestureDataModule])
def test_a_missing_set_says_what_goes_where(cls, tmp_path):
    with pytest.raises(DataError, match=r"is missing: no recordings in .*with a browser and unpack them to"):
        cls(str(tmp_path / "nothing")).prepare_data()


def test_what_events_do_not_take():
    with pytest.raises(ValueError, match="crop_padding and flip"):
        NMNISTDataModule(auto_augment="cifar10")
    with pytest.raises(ValueError, match="'count' or 'time'"):
        NMNISTDataModule(split_by="space")
    with pytest.raises(ValueError, match="time_steps must be at least 1"):
        NMNISTDataModule(time_steps=0)


def test_predicts_recordings(nmnist):
    data = NMNISTDataModule(str(nmnist), time_steps=4, predict_dir=str(nmnist / "Test"), batch_size=4)
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert sum(len(paths) for _, paths in batches) == 10
    assert batches[0][0].shape == (4, 4, 2, 34, 34)
    data.predict_dir = str(nmnist / "nothing")
    with pytest.raises(DataError, match="no recordings"):
        data.predict_dataloader()


# -- transforms ------------------------------------------------------------------------------------


def test_a_draw_holds_for_all_steps_and_does_not_depend_on_the_batch():
    frame = torch.randint(0, 5, (6, 1, 2, 12, 12), dtype=torch.uint8)
    frames = frame.expand(-1, 3, -1, -1, -1).contiguous()
    keys = sample_keys(0, 0, np.arange(6))
    pipeline = EventPipeline(None, Augmentation(crop_padding=2, flip=0.5), one_of_three=True)
    out = pipeline(frames, keys)
    assert torch.equal(out[:, 0], out[:, 1])
    assert torch.equal(out[:, 0], out[:, 2])
    assert not torch.equal(out, frames.float())
    assert torch.equal(pipeline(frames[2:4], keys[2:4]), out[2:4])
    assert torch.equal(EventPipeline()(frames), frames.float())


def test_each_of_three_changes_occurs():
    ones = torch.full((60, 1, 2, 12, 12), 3, dtype=torch.uint8)
    out = EventPipeline(None, Augmentation(), one_of_three=True)(ones, sample_keys(1, 0, np.arange(60)))
    lost = (out == 0).flatten(1).sum(1)
    assert (lost == 0).any(), "rolled"
    holes = {int(n) // 2 for n in lost if n}
    assert 16 in holes, "a square of a third cut out"
    corners = out[:, 0, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert ((corners == 0).all(1) & (out[:, 0, 0, 6, 6] == 3)).any(), "rotated"


# -- real recordings -------------------------------------------------------------------------------


@pytest.mark.skipif("NMNIST_SMALL" not in os.environ, reason="NMNIST_SMALL names no folder of recordings")
def test_real_recordings(tmp_path):
    root = Path(os.environ["NMNIST_SMALL"])
    data = ready(NMNISTDataModule(str(root), cache_dir=str(tmp_path), time_steps=5))
    assert (len(data.train_set), len(data.test_set)) == (1000, 100)
    counts = np.array([len(read_nmnist(p).t) for p in sorted(root.glob("*.bs2"))])
    assert (counts.min(), counts.max()) == (1069, 7152)
    assert round(counts.mean()) == 4108
