"""Data of no classes: what the base of all data modules needs, and what it does not."""

import pytest
import torch

from datamodules import BaseDataModule
from datamodules.loading.datasets import BatchDataset, split_keys


class Transitions(BatchDataset):
    """(observation, action) pairs of a replay, without images, labels or a transform."""

    def __init__(self, count):
        self.observations = torch.arange(float(count))[:, None].repeat(1, 3)

    def __getitems__(self, keys):
        indices, epochs = split_keys(keys)
        rows = torch.from_numpy(indices)
        return self.observations[rows], torch.from_numpy(epochs)

    def __len__(self):
        return len(self.observations)


class ReplayDataModule(BaseDataModule):
    title = "replay"

    def setup(self, stage=None):
        self.train_set, self.val_set = Transitions(20), Transitions(6)


def test_data_without_classes_have_loaders_order_and_calibration():
    data = ReplayDataModule(batch_size=8, num_workers=0, seed=3)
    data.setup()
    loader = data.train_dataloader()
    assert [len(x) for x, _ in loader] == [8, 8]
    first = torch.cat([x for x, _ in loader])
    loader.sampler.set_epoch(1)
    assert not torch.equal(torch.cat([x for x, _ in loader]), first)
    assert [len(x) for x, _ in data.val_dataloader()] == [6]
    calibration = torch.cat([x for x, _ in data.calibration_dataloader(samples=5)])
    assert len(calibration) == 5
    assert set(calibration[:, 0].tolist()) <= set(range(20))


def test_data_without_classes_say_nothing_of_classes_or_images():
    data = ReplayDataModule(seed=3)
    assert data.facts() == {"name": "replay", "hub_id": None, "licence": None}
    assert "classes" not in data.describe()
    assert not hasattr(data, "num_classes")
    assert not hasattr(data, "input_size")
    with pytest.raises(TypeError, match="image_size"):
        ReplayDataModule(image_size=8)
