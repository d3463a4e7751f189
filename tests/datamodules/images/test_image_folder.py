"""Folders of images, their decoded copy, and what goes wrong with them."""

import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image

from datamodules import (
    CIFAR10DataModule,
    DataError,
    ImageFolderDataModule,
    ImageNetDataModule,
    TinyImageNetDataModule,
)

SMALL = {"num_workers": 0, "batch_size": 4}


def test_image_folder_with_and_without_cache_agree(root, check):
    options = {**SMALL, "crop_padding": 2, "flip": 0.5, "seed": 1, "val": "val"}
    plain = check(ImageFolderDataModule(str(root), **options), (3, 16, 16), 2)
    cached = check(ImageFolderDataModule(str(root), cache=True, **options), (3, 16, 16), 2)
    assert (len(plain.train_set), len(plain.val_set), len(plain.test_set)) == (12, 6, 6)
    assert plain.class_names == ("cat", "dog")
    for (x, y), (x2, y2) in zip(plain.train_dataloader(), cached.train_dataloader(), strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    theirs = torchvision.datasets.ImageFolder(str(root / "val"))
    for i, (image, label) in enumerate(theirs):
        assert (cached.val_set.images[i] == np.asarray(image).transpose(2, 0, 1)).all()
        assert cached.val_set.targets[i] == label


def test_cache_follows_the_files_and_is_whole(root, monkeypatch):
    folder = root.parent / "set-decoded"
    ImageFolderDataModule(str(root), cache=True, **SMALL).prepare_data()
    first = sorted(folder.iterdir())
    assert [path.name.split("-")[0] for path in first] == ["train", "val"]
    stamp = first[0].stat().st_mtime_ns
    ImageFolderDataModule(str(root), cache=True, **SMALL).prepare_data()
    assert sorted(folder.iterdir()) == first
    assert first[0].stat().st_mtime_ns == stamp  # used again, not written again
    Image.new("RGB", (16, 16)).save(root / "train" / "cat" / "0000.jpg")
    data = ImageFolderDataModule(str(root), cache=True, **SMALL)
    data.setup()
    assert (data.train_set.images[0] == 0).all()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    before = sorted(folder.iterdir())
    Image.new("RGB", (16, 16)).save(root / "train" / "cat" / "0001.jpg")
    with pytest.raises(DataError, match="No space left on device"):
        ImageFolderDataModule(str(root), cache=True, **SMALL).setup()
    assert sorted(folder.iterdir()) == before  # nothing half-written


def test_cache_in_another_place_and_nowhere(root, tmp_path):
    options = {"cache": True, **SMALL}
    place = tmp_path / "elsewhere"
    ImageFolderDataModule(str(root), cache_dir=str(place), **options).prepare_data()
    assert len(list(place.glob("*.npy"))) == 2
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DataError, match="set cache_dir, or cache: false"):
        ImageFolderDataModule(str(root), cache_dir=str(blocked), **options).prepare_data()
    victim = next(place.glob("train*.npy"))
    victim.write_bytes(victim.read_bytes()[:300])
    with pytest.raises(DataError, match="delete it to decode again"):
        ImageFolderDataModule(str(root), cache_dir=str(place), **options).setup()


def test_image_folder_splits(root, write_images):
    write_images(root / "test", count=2)
    data = ImageFolderDataModule(str(root), **SMALL)
    data.setup()
    assert (len(data.val_set), len(data.test_set)) == (6, 4)
    data = ImageFolderDataModule(str(root), val="test", **SMALL)
    data.setup()
    assert (len(data.val_set), len(data.test_set)) == (4, 4)
    data = ImageFolderDataModule(str(root), val=0.34, **SMALL)
    data.setup()
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (8, 4, 4)


def test_class_folders_without_splits(root):
    data = ImageFolderDataModule(str(root / "train"), val=0.34, **SMALL)
    data.setup()
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (6, 4, 2)
    rows = [set(part.rows) for part in (data.train_set, data.val_set, data.test_set)]
    assert sorted(row for part in rows for row in part) == list(range(12))  # nothing twice
    assert str(data.splits()["test"]) == "held out of train for the test, 2 samples"
    other = ImageFolderDataModule(str(root / "train"), **SMALL)
    other.setup()
    assert (other.test_set.rows == data.test_set.rows).all()  # whatever is held out to choose
    with pytest.raises(DataError, match="set val to a fraction"):
        ImageFolderDataModule(str(root / "train"), val="val", **SMALL).setup()


def test_what_chooses_is_not_what_is_reported(root, write_images, tmp_path):
    """Names and sizes of the sets for every combination of folders and `val`."""

    def splits(folder, val=None):
        data = ImageFolderDataModule(str(folder), val=val, **SMALL)
        data.setup()
        return {role: (split.name, split.samples) for role, split in data.splits().items()}

    held = ("held out of train", 2)
    assert splits(root) == {"train": ("train", 10), "val": held, "test": ("validation", 6)}
    assert splits(root, "val") == {
        "train": ("train", 12),
        "val": ("validation", 6),
        "test": ("validation", 6),
    }
    write_images(root / "test", count=2)
    assert splits(root) == {"train": ("train", 12), "val": ("validation", 6), "test": ("test", 4)}
    assert splits(root, "test") == {"train": ("train", 12), "val": ("test", 4), "test": ("test", 4)}
    shutil.rmtree(root / "val")
    assert splits(root) == {"train": ("train", 10), "val": held, "test": ("test", 4)}
    (root / "val").symlink_to(root / "test", target_is_directory=True)
    assert splits(root)["test"] == splits(root)["val"] == ("validation", 4)  # the same images
    (root / "val").unlink()
    shutil.rmtree(root / "train")
    assert splits(root) == {"val": ("test", 4), "test": ("test", 4)}
    write_images(root / "train", count=1)
    with pytest.warns(UserWarning, match="chosen on the images that are reported"):
        assert splits(root)["val"] == ("test", 4)


def test_grey_images(root, check):
    check(ImageFolderDataModule(str(root), in_chans=1, **SMALL), (1, 16, 16), 2)


def test_imagenet_layout(tmp_path, check, write_images):
    synsets = ("n01440764", "n01443537", "n01484850")
    write_images(tmp_path / "train", synsets, 4, side=50, suffix=".JPEG")
    write_images(tmp_path / "val", synsets, 2, side=40, suffix=".JPEG", mode="L")
    data = ImageNetDataModule(
        str(tmp_path), image_size=24, auto_augment="rand-m9-mstd0.5-inc1", crop_pct=0.95, **SMALL
    )
    check(data, (3, 24, 24), 3)
    assert data.class_names == synsets
    assert "RandomResizedCrop" in repr(data.train_transform)
    assert "size=25" in repr(data.eval_transform)  # floor(24 / 0.95)
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (9, 3, 6)
    assert data.splits()["test"].name == "validation"
    assert "val 3 (held out of train), test 6 (validation)" in data.describe()
    theirs = ImageNetDataModule(str(tmp_path), image_size=24, val="val", **SMALL)
    theirs.setup()
    assert (len(theirs.train_set), theirs.splits()["val"].name) == (12, "validation")
    with pytest.raises(DataError, match=r"cannot be downloaded.*image-net.org"):
        ImageNetDataModule(str(tmp_path / "missing"))


def test_calibration_images_of_folders_are_not_augmented(root):
    for style in ("small", "imagenet"):
        size = 12 if style == "imagenet" else None
        options = {"style": style, "image_size": size, "flip": 1.0, "val": "val", **SMALL}
        data = ImageFolderDataModule(str(root), **options)
        data.setup()
        batches = list(data.calibration_dataloader(samples=6))
        assert [len(x) for x, _ in batches] == [4, 2]
        plain = data.train_set.with_transform(data.eval_transform)
        seen = {tuple(x.flatten().tolist()) for xs, _ in batches for x in xs}
        assert seen <= {tuple(plain[i][0].flatten().tolist()) for i in range(12)}
        mirrored = {tuple(data.train_set[i][0].flatten().tolist()) for i in range(12)}
        assert seen.isdisjoint(mirrored)


def test_workers_do_not_change_images(root):
    def batches(workers):
        data = ImageFolderDataModule(
            str(root), val="val", style="imagenet", image_size=12, auto_augment="rand-m9-mstd0.5",
            flip=0.5, random_erasing=0.5, batch_size=4, num_workers=workers, seed=2,
        )  # fmt: skip
        data.setup()
        loader = data.train_dataloader()
        out = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            out += [x for x, _ in loader]
        return out

    alone, helped = batches(0), batches(2)
    assert len(alone) == 6
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))


def test_empty_and_broken_folders(root, tmp_path):
    with pytest.raises(DataError, match=r"no such folder: .*missing"):
        ImageFolderDataModule(str(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds nothing; expected one folder per class"):
        ImageFolderDataModule(str(tmp_path / "empty"))
    (tmp_path / "flat" / "train").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "flat" / "train" / "a.png")
    with pytest.raises(DataError, match="holds 1 images but no folders"):
        ImageFolderDataModule(str(tmp_path / "flat"))
    (root / "train" / "bird").mkdir()
    with pytest.raises(DataError, match=r"no images \(.*\) in .*bird"):
        ImageFolderDataModule(str(root), **SMALL).setup()
    (root / "train" / "bird").rmdir()
    (root / "val" / "fox").mkdir()
    with pytest.raises(DataError, match="classes that training lacks: fox"):
        ImageFolderDataModule(str(root), **SMALL).setup()


@pytest.mark.parametrize("content", ["cut off", "no image"])
@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named(root, cache, workers, content):
    victim = root / "train" / "dog" / "0003.jpg"
    victim.write_bytes(victim.read_bytes()[:200] if content == "cut off" else b"not an image")
    data = ImageFolderDataModule(str(root), cache=cache, batch_size=4, num_workers=workers)

    def use():
        data.setup()
        list(data.train_dataloader())

    with pytest.raises(DataError, match=r"cannot read the image .*dog/0003.jpg"):
        use()


def test_an_image_of_another_size_is_named(root):
    Image.new("RGB", (20, 10)).save(root / "train" / "dog" / "0002.jpg")
    data = ImageFolderDataModule(str(root), cache=True, **SMALL)
    with pytest.raises(DataError, match=r"0002.jpg: expected 16x16 .* got 10x20; .*imagenet"):
        data.setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "large"}, "style must be 'small' or 'imagenet'"),
        ({"style": "imagenet"}, "needs an image_size"),
        ({"style": "imagenet", "image_size": 8, "cache": True}, "needs style: small"),
        ({"in_chans": 2}, "in_chans must be 1"),
        ({"val": "train"}, "val must be"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"num_workers": -1}, "num_workers must be 0 or more"),
        ({"mean": [0.5]}, "mean has 1 values for 3 channels"),
        ({"std": [0.5, 0.0, 0.5]}, "std must be positive"),
    ],
)
def test_impossible_settings(root, options, message):
    with pytest.raises(ValueError, match=message):
        ImageFolderDataModule(str(root), **options)


def test_cifar_as_images(tmp_path, check, write_images):
    classes = CIFAR10DataModule().class_names
    write_images(tmp_path / "cifar" / "train", classes, 2, side=32)
    write_images(tmp_path / "cifar" / "test", classes, 1, side=32)
    data = check(CIFAR10DataModule(folder=str(tmp_path / "cifar"), val="test", **SMALL), (3, 32, 32), 10)
    assert (len(data.train_set), len(data.test_set)) == (20, 10)
    write_images(tmp_path / "other" / "train", ("cat", "cow"), 1, side=32)
    with pytest.raises(DataError, match="does not hold the classes of this set"):
        CIFAR10DataModule(folder=str(tmp_path / "other"), **SMALL).prepare_data()


def test_real_images_of_cifar10(tmp_path, check):
    archive = Path(os.environ.get("FULGURITE_DATA", "../shared/data")) / "cifar10_jpeg.tar.xz"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there; FULGURITE_DATA names the folder that holds it")
    with tarfile.open(archive) as tar:
        few = [m for m in tar if m.isfile() and int(Path(m.name).stem) <= 12]
        tar.extractall(tmp_path, few, filter="data")
    data = check(CIFAR10DataModule(folder=str(tmp_path / "cifar10"), **SMALL), (3, 32, 32), 10)
    per_class = torch.bincount(data.train_set.targets)
    assert per_class.min() == per_class.max() >= 11
    # natural images: neighbouring pixels are alike; where axes are mixed up the steps between
    # them are larger than the spread of the values
    pixels = data.train_set.images.astype(float)
    step = np.abs(np.diff(pixels, axis=-1)).mean(), np.abs(np.diff(pixels, axis=-2)).mean()
    assert max(step) < 0.5 * np.abs(pixels - pixels.mean()).mean()


def tiny_imagenet(tmp_path, write_images):
    """The archive's own layout: labels of the validation set in a table, a test set without labels."""
    root = tmp_path / "tiny-imagenet-200"
    synsets = ("n01443537", "n01629819")
    for name in synsets:
        write_images(root / "train" / name, ("images",), side=64, suffix=".JPEG")
        (root / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t63\t63\n")
    write_images(root / "val", ("images",), count=4, side=64, suffix=".JPEG")
    write_images(root / "test", ("images",), count=2, side=64, suffix=".JPEG")
    lines = [f"{i:04d}.JPEG\t{synsets[i % 2]}\t0\t0\t62\t62\n" for i in range(4)]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return root


def test_tiny_imagenet_as_it_unpacks(tmp_path, write_images, check):
    root = tiny_imagenet(tmp_path, write_images)
    data = check(TinyImageNetDataModule(str(root), **SMALL), (3, 64, 64), 2)
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (10, 2, 4)
    assert data.splits()["test"].name == "validation"
    assert [int(y) for _, y in (data.test_set[i] for i in range(4))] == [0, 1, 0, 1]
    assert data.mean == (0.480, 0.448, 0.398)
    image = np.asarray(Image.open(root / "val" / "images" / "0003.JPEG"))
    x = data.test_set[3][0] * torch.tensor(data.std).view(3, 1, 1) + torch.tensor(data.mean).view(3, 1, 1)
    assert np.abs(x.numpy().transpose(1, 2, 0) * 255 - image).max() < 0.5  # not resized


def test_tiny_imagenet_says_what_is_wrong(tmp_path, write_images):
    with pytest.raises(DataError, match=r"unpack tiny-imagenet-200\.zip"):
        TinyImageNetDataModule(str(tmp_path / "nowhere"))
    root = tiny_imagenet(tmp_path, write_images)
    with (root / "val" / "val_annotations.txt").open("a") as table:
        table.write("0001.JPEG\tn99999999\n")
    data = TinyImageNetDataModule(str(root), **SMALL)
    with pytest.raises(DataError, match=r"line 5: 'n99999999' is no class"):
        data.setup()


def test_only_what_it_is_bears_the_name(tmp_path, write_images):
    """A folder of other classes is not called ImageNet, nor a copy by the identifier of the original."""
    write_images(tmp_path / "mine" / "train", ("n01440764", "n01443537"), 2, side=40)
    write_images(tmp_path / "mine" / "val", ("n01440764", "n01443537"), 2, side=40)
    facts = ImageNetDataModule(str(tmp_path / "mine"), image_size=24).facts()
    assert (facts["name"], facts["hub_id"], facts["licence"]) == ("images of the folder mine", None, None)
    synsets = tuple(f"n{i:08d}" for i in range(1000))
    for split in ("train", "val"):
        for name in synsets:
            (tmp_path / "all" / split / name).mkdir(parents=True)
    facts = ImageNetDataModule(str(tmp_path / "all"), image_size=24).facts()
    assert (facts["name"], facts["hub_id"]) == ("ImageNet-1k", "ILSVRC/imagenet-1k")
    assert CIFAR10DataModule().facts()["hub_id"] == "uoft-cs/cifar10"
    assert CIFAR10DataModule(folder=str(tmp_path)).facts()["hub_id"] is None
