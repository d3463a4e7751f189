"""Pairs of images with a change map: made-up cities, folders, and the joint augmentation."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import ChangePairsDataModule, DataError, SyntheticCitiesDataModule
from datamodules.change_pairs import make_cities
from datamodules.change_pairs.augment import augmented


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def root(tmp_path):
    """A folder of four pairs of 24 x 20 pixels in each set."""
    draw = np.random.default_rng(0)
    for role in ("train", "val", "test"):
        for name in ("d", "b", "a", "c"):
            for part in ("A", "B"):
                write(
                    tmp_path / role / part / f"{name}.png", draw.integers(0, 256, (24, 20, 3), dtype=np.uint8)
                )
            mark = (draw.random((24, 20)) > 0.5).astype(np.uint8) * 255
            write(tmp_path / role / "label" / f"{name}.png", mark)
    return tmp_path


def test_cities_change_where_the_map_says():
    pairs = make_cities(200, seed=1)
    inside = pairs.change[:, 0] > 0
    assert set(np.unique(pairs.change)) == {-1, 1}
    before, after = (images.mean(1) > 0.1 for images in (pairs.before, pairs.after))
    assert (before != after)[inside].all()
    assert np.array_equal(
        pairs.before.transpose(0, 2, 3, 1)[~inside], pairs.after.transpose(0, 2, 3, 1)[~inside]
    )
    built = after[inside].mean()
    assert 0.4 < built < 0.6  # as often built as demolished
    assert (before & after).any()  # some are kept
    again = make_cities(3, seed=1)
    assert all(np.array_equal(a, b[:3]) for a, b in zip(again, pairs, strict=True))
    assert not np.array_equal(make_cities(3, seed=2).before, again.before)


def test_batches_of_cities():
    data = SyntheticCitiesDataModule(train_samples=20, test_samples=6, batch_size=4)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert {k: tuple(batch[k].shape) for k in ("before", "change", "after")} == {
        "before": (4, 3, 16, 16), "change": (4, 1, 16, 16), "after": (4, 3, 16, 16),
    }  # fmt: skip
    assert len(set(batch["name"])) == 4
    tests = torch.cat([b["before"] for b in data.test_dataloader()])
    vals = torch.cat([b["before"] for b in data.val_dataloader()])
    assert len(tests) == len(vals) == 6
    assert not torch.equal(tests, vals)


def test_all_three_images_are_moved_alike():
    row, column = torch.meshgrid(torch.arange(24.0), torch.arange(20.0), indexing="ij")
    where = row * 100 + column
    images = torch.stack([where, row, column, where, where, row, column])
    seen = set()
    for key in range(60):
        made = augmented(images, 16, key)
        assert made.shape == (7, 16, 16)
        assert torch.equal(made[0], made[3])
        assert torch.equal(made[0], made[4])
        assert torch.equal(made[1], made[5])
        assert torch.equal(made[0], made[1] * 100 + made[2])  # nearest pixels: no mixed coordinates
        down, right = made[1, -1, 0] > made[1, 0, 0], made[2, 0, -1] > made[2, 0, 0]
        seen.add((bool(down), bool(right)))
    assert len(seen) == 4
    assert torch.equal(augmented(images, 16, 5), augmented(images, 16, 5))


def test_a_folder(root):
    data = ChangePairsDataModule(root=str(root), image_size=16, batch_size=2, num_workers=0)
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["before"].shape == (2, 3, 16, 16)
    assert set(batch["change"].unique().tolist()) <= {-1.0, 1.0}
    data.setup("test")
    batches = list(data.test_dataloader())
    assert [name for b in batches for name in b["name"]] == ["a", "b", "c", "d"]
    with Image.open(root / "test" / "B" / "a.png") as image:
        expected = np.asarray(image)[4:20, 2:18]
    got = ((batches[0]["after"][0].permute(1, 2, 0) + 1) * 127.5).round().numpy()
    assert np.array_equal(got, expected)


def test_a_folder_without_the_image_after_is_predicted(root):
    for path in (root / "test" / "B").iterdir():
        path.unlink()
    (root / "test" / "B").rmdir()
    data = ChangePairsDataModule(root=str(root / "test"), image_size=16, batch_size=4, num_workers=0)
    (batch,) = list(data.predict_dataloader())
    assert batch["name"] == ["a", "b", "c", "d"]
    assert not batch["known"]


def read(data):
    """All test samples."""
    data.setup("test")
    return list(data.test_dataloader())


def grey_map(root):
    write(root / "test" / "label" / "a.png", np.arange(480, dtype=np.uint8).reshape(24, 20) % 7)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda r: (r / "test" / "B" / "a.png").rename(r / "test" / "B" / "z.png"),
            "A has a.png and B has not",
        ),
        (
            lambda r: write(r / "test" / "B" / "a.png", np.zeros((20, 20, 3), np.uint8)),
            "must be of one size, got A/a.png 24 x 20",
        ),
        (grey_map, "a.png is no change map: expected two values, 0 and 255, got 0, 1, 2"),
        (lambda r: (r / "test" / "A" / "a.png").write_text("none"), "a.png cannot be read as an image"),
        (lambda r: [p.unlink() for p in (r / "test" / "label").iterdir()], "label holds no images"),
    ],
)
def test_bad_folders(root, spoil, message):
    spoil(root)
    data = ChangePairsDataModule(root=str(root), image_size=16, num_workers=0)
    with pytest.raises(DataError, match=re.escape(message)):
        read(data)


@pytest.mark.parametrize("role", ["train", "val"])
def test_images_smaller_than_the_crop_are_refused_before_anything_runs(root, role):
    for part in ("A", "B", "label"):
        with Image.open(root / role / part / "c.png") as image:
            image.crop((0, 0, 20, 15)).save(root / role / part / "c.png")
    data = ChangePairsDataModule(root=str(root), image_size=16, num_workers=0)
    message = (
        f"{role}/A/c.png has 15 x 20 pixels, too few for a crop of 16 x 16; set data.init_args.image_size"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        data.setup("fit")
    data.setup("test")  # that set is sound


def test_bad_settings(root, tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        ChangePairsDataModule(root=str(tmp_path / "nowhere")).prepare_data()
    with pytest.raises(ValueError, match="train_samples must be at least 1, got 0"):
        SyntheticCitiesDataModule(train_samples=0)
