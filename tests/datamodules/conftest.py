"""Helpers of the data tests: no network, tiny image folders, a common check."""

import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def check():
    """Return a function that checks facts, batches and transforms of a data module."""

    def check(data, shape, classes):
        """Facts, batches and transforms of a data module that is ready."""
        data.prepare_data()
        data.setup()
        assert data.num_classes == classes == len(data.class_names)
        assert data.input_size == shape
        assert data.in_chans == shape[0] == len(data.mean) == len(data.std)
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
            x, y = next(iter(loader))
            assert x.shape[1:] == shape
            assert x.dtype == torch.float32
            assert torch.isfinite(x).all()
            assert y.dtype == torch.int64
            assert y.shape == x.shape[:1]
            assert y.min() >= 0
            assert y.max() < classes
        x, y = data.test_set[0]
        assert x.shape == shape
        assert y.shape == ()
        text = data.describe()
        assert type(data).__name__ in text
        assert "normalise" in text or "Normalize" in text
        return data

    return check


@pytest.fixture
def write_images():
    """Return a function that writes folders of random images."""

    def write_images(folder, classes=("cat", "dog"), count=6, side=16, suffix=".jpg", mode="RGB"):
        random = np.random.default_rng(len(str(folder)))
        for name in classes:
            (folder / name).mkdir(parents=True)
            for i in range(count):
                shape = (side, side, 3)
                image = Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8))
                image.convert(mode).save(folder / name / f"{i:04d}{suffix}")

    return write_images


@pytest.fixture
def root(tmp_path, write_images):
    write_images(tmp_path / "set" / "train")
    write_images(tmp_path / "set" / "val", count=3)
    return tmp_path / "set"
