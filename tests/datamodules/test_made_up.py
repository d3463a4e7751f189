"""Made-up images: targets follow from what is drawn, the same for every run, no digit in two sets."""

import numpy as np
import pytest

from datamodules import DigitCanvasDataModule, RoadsDataModule, ShapesDataModule

KINDS = (DigitCanvasDataModule, RoadsDataModule, ShapesDataModule)
SMALL = {"train_samples": 60, "val_samples": 40, "test_samples": 40}


def made(kind, **options):
    data = kind(**{**SMALL, **options})
    data.setup()
    return data


@pytest.mark.parametrize("kind", KINDS)
def test_samples_depend_on_no_seed_and_sets_differ(kind):
    first, second = made(kind, seed=0), made(kind, seed=7)
    assert np.array_equal(first.train_set.images, second.train_set.images)
    assert not np.array_equal(first.val_set.images, first.test_set.images)
    x, y = next(iter(first.train_dataloader()))
    assert tuple(x.shape[1:]) == first.input_size
    assert len(y) == len(x)
    with pytest.raises(ValueError, match="takes no augmentation"):
        kind(flip=0.5)
    with pytest.raises(ValueError, match="needs a sample or more"):
        kind(val_samples=0)


def test_the_road_goes_where_the_car_is_steered():
    data = made(RoadsDataModule, train_samples=300)
    images, angles = data.train_set.images[:, 0].astype(float), data.train_set.labels[:, 0].numpy()
    # where the road is dark in the row that looks about as far as the driver aims
    row = images[:, 17]
    dark = np.maximum(row.mean(axis=1, keepdims=True) - row, 0)
    middle = (dark * np.arange(32)).sum(axis=1) / dark.sum(axis=1)
    assert np.corrcoef(middle, angles)[0, 1] > 0.8
    assert 3 < angles.std() < 6
    assert abs(angles.mean()) < 1


def test_the_ground_is_seen_where_no_shape_is():
    data = made(ShapesDataModule)
    images, masks = data.train_set.images[:, 0].astype(float), data.train_set.labels.numpy()
    assert set(np.unique(masks)) == {0, 1, 2, 3}
    for image, mask in zip(images, masks, strict=True):
        ground = np.median(image[mask == 0])
        for kind in set(np.unique(mask)) - {0}:
            if (mask == kind).sum() > 12:
                assert np.abs(image[mask == kind] - ground).mean() > 15


def test_no_digit_is_on_canvases_of_two_sets():
    data = made(DigitCanvasDataModule)
    labels = data.train_set.labels.sum(dim=1)
    assert labels.min() >= 1
    assert labels.max() <= 4
    found = []
    for part in (data.train_set, data.val_set, data.test_set):
        digits = set()
        for image in part.images[:, 0]:
            for quarter in (image[:20, :20], image[:20, 20:], image[20:, :20], image[20:, 20:]):
                if quarter.any():
                    rows, columns = quarter.any(axis=1).nonzero()[0], quarter.any(axis=0).nonzero()[0]
                    digits.add(quarter[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].tobytes())
        found.append(digits)
    assert all(found)
    assert not found[0] & found[1]
    assert not (found[0] | found[1]) & found[2]
