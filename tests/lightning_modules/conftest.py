"""Tiny tasks, data and trainers, so that a whole run takes about a second."""

import lightning.pytorch as pl
import pytest

from datamodules import SyntheticDataModule
from lightning_modules import ClassificationTask

TINY = {"time_steps": 2, "channels": [4, 8], "pool_size": 1}


@pytest.fixture
def tiny_task():
    def make(cls=ClassificationTask, model="spiking_cnn_nano", **arguments):
        options = {"model_args": TINY, "num_classes": 6, "in_chans": 1, "lr": 1e-2, **arguments}
        return cls(model, **options)

    return make


@pytest.fixture
def tiny_data():
    def make(**arguments):
        options = {"num_classes": 6, "in_chans": 1, "batch_size": 8, "image_size": 16}
        counts = {"train_samples": 32, "val_samples": 16, "test_samples": 16}
        return SyntheticDataModule(**{**options, **counts, **arguments})

    return make


@pytest.fixture
def trainer(tmp_path):
    def make(**arguments):
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        options = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "default_root_dir": tmp_path}
        return pl.Trainer(**{**quiet, "enable_checkpointing": False, **options, **arguments})

    return make
