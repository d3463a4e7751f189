"""Spiking speech: files in the published layout, and made-up words that can be told apart."""

import numpy as np
import pytest
import torch

from datamodules import DataError, MadeUpSpeechDataModule, SHDDataModule, SSCDataModule
from datamodules.events.made_up_speech import HIGHEST, LOWEST, WORDS, mel, rates
from datamodules.events.speech import SpeechPipeline, count_spikes
from datamodules.loading.random import sample_keys

h5py = pytest.importorskip("h5py", reason="no h5py: pip install 'fulgurite[events]'")


def write(path, labels, seed=0, last=1.2, units=700):
    """A file as the publishers have it: spikes of varying number, times in seconds as float16."""
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", (len(labels),), h5py.vlen_dtype(np.float16))
        places = file.create_dataset("spikes/units", (len(labels),), h5py.vlen_dtype(np.uint16))
        for i in range(len(labels)):
            number = int(random.integers(50, 90))
            times[i] = np.sort(random.uniform(0, last, number))
            places[i] = random.integers(0, units, number)
        file["labels"] = np.array(labels, np.uint16)
        file["extra/speaker"] = np.zeros(len(labels), np.uint16)
    return path


@pytest.fixture
def shd(tmp_path):
    write(tmp_path / "set" / "shd_train.h5", [k % 20 for k in range(60)])
    write(tmp_path / "set" / "shd_test.h5", list(range(20)), seed=1)
    return tmp_path / "set"


OPTIONS = {"batch_size": 4, "num_workers": 0}


def ready(data):
    data.prepare_data()
    data.setup()
    return data


def test_shd(shd):
    data = ready(SHDDataModule(str(shd), val=0.34, **OPTIONS))
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (40, 20, 20)
    assert (data.input_size, data.num_classes, data.class_names[13]) == ((140, 1, 1), 20, "drei")
    x, y = data.test_set[3]
    assert x.shape == (140, 140, 1, 1)
    assert int(y) == 3
    with h5py.File(shd / "shd_test.h5") as file:
        times, units = file["spikes/times"][3], file["spikes/units"][3]
    want = np.zeros((140, 140))
    for t, u in zip(times.astype(float), units.tolist(), strict=True):
        want[int(t / 0.01), u // 5] += 1
    assert np.array_equal(x[..., 0, 0].numpy(), want)
    assert len(list(shd.parent.glob("set-decoded/*.npy"))) == 2
    ready(SHDDataModule(str(shd), step_ms=20.0, **OPTIONS))
    assert len(list(shd.parent.glob("set-decoded/*.npy"))) == 4, "another step has counts of its own"
    assert "140x1x1" in data.describe()


def test_ssc_chooses_on_its_validation_file(tmp_path):
    for split, count in (("train", 70), ("valid", 35), ("test", 36)):
        write(tmp_path / f"ssc_{split}.h5", [k % 35 for k in range(count)], seed=count)
    data = ready(SSCDataModule(str(tmp_path), cache_dir=str(tmp_path / "c"), **OPTIONS))
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (70, 35, 36)
    assert data.splits()["val"].name == "validation"
    assert data.splits()["test"].name == "test"


def test_spikes_after_the_last_step_are_told(shd):
    with pytest.warns(UserWarning, match=r"of .* spikes come after 60 steps of 10 ms and are left out"):
        SHDDataModule(str(shd), time_steps=60, **OPTIONS).prepare_data()


def test_what_is_refused(shd, tmp_path):
    with pytest.raises(DataError, match=r"no .*shd_train\.h5; fetch shd_train\.h5 from https://zenkelab"):
        SHDDataModule(str(tmp_path / "nothing")).prepare_data()
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "shd_train.h5.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"unpack shd_train\.h5\.gz"):
        SHDDataModule(str(tmp_path / "packed")).prepare_data()
    write(shd / "shd_train.h5", [3, 20])
    with pytest.raises(DataError, match="labels are 0 to 19, got 3 to 20"):
        SHDDataModule(str(shd)).prepare_data()
    write(shd / "shd_train.h5", [3, 4], units=900)
    with pytest.raises(DataError, match=r"recording 0: units are 0 to 699, got"):
        SHDDataModule(str(shd)).prepare_data()
    with h5py.File(shd / "shd_train.h5", "w") as file:
        file["labels"] = [1]
    with pytest.raises(DataError, match=r"has no spikes/times, spikes/units; it holds labels"):
        SHDDataModule(str(shd)).prepare_data()
    (shd / "shd_train.h5").write_bytes((shd / "shd_test.h5").read_bytes()[:3000])
    with pytest.raises(DataError, match="cut off"):
        SHDDataModule(str(shd)).prepare_data()
    with pytest.raises(ValueError, match="at most the 700 units"):
        SHDDataModule(channels=701)
    with pytest.raises(ValueError, match="none of the augmentations"):
        SHDDataModule(flip=0.5)
    with pytest.raises(DataError, match="2 times and 1 units"):
        count_spikes(np.zeros(2), np.zeros(1, int), 4, 0.01, 7)


def test_channels_shift_alike_at_all_steps():
    counts = torch.zeros(40, 3, 9, 1, 1, dtype=torch.uint8)
    counts[:, :, 4] = 7
    keys = sample_keys(0, 0, np.arange(40))
    moved = SpeechPipeline(2)(counts, keys)
    assert torch.equal(moved[:, 0], moved[:, 2])
    assert set(moved[:, 0, :, 0, 0].argmax(1).tolist()) == {2, 3, 4, 5, 6}
    assert torch.equal(SpeechPipeline(2)(counts[5:9], keys[5:9]), moved[5:9])
    assert torch.equal(SpeechPipeline()(counts), counts.float())


# -- made-up words ---------------------------------------------------------------------------------


def test_made_up_words_are_seeded_and_come_in_three_sets():
    options = {"train_samples": 30, "val_samples": 10, "test_samples": 20, **OPTIONS}
    data, again = (ready(MadeUpSpeechDataModule(**options)) for _ in range(2))
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (30, 10, 20)
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == (4, 50, 70, 1, 1)
    assert np.array_equal(data.test_set.images, again.test_set.images)
    assert not np.array_equal(data.test_set.images[:10], data.val_set.images)
    other = ready(MadeUpSpeechDataModule(speech_seed=1, **options))
    assert not np.array_equal(data.test_set.images, other.test_set.images)
    assert data.splits()["val"].name == "validation"
    assert set(y.tolist()) <= set(range(10))


def test_a_word_sounds_where_its_formants_are():
    """The first formant of "two" lies low throughout; "six" begins and ends with a hiss above 4 kHz."""
    centres = np.linspace(mel(LOWEST), mel(HIGHEST), 70)
    high = centres > mel(4000)
    two, six = (rates(word, 70, 50, np.random.default_rng(3)) for word in ("two", "six"))
    loud = two.sum(1) > 0.5 * two.sum(1).max()
    assert centres[two[loud].mean(0).argmax()] < mel(450)
    heard = np.flatnonzero(six.sum(1) > 0.4 * six.sum(1).max())
    for step in (heard[0], heard[-1]):
        assert six[step, high].sum() > six[step, ~high].sum()
    middle = six[heard[0] : heard[-1]]
    assert (middle[:, ~high].sum(1) > middle[:, high].sum(1)).any()
    assert len(WORDS) == 10
