"""The weights in the package reach the accuracy that stands beside them."""

import pytest
import torch

import zoo
from datamodules import MNIST5kDataModule
from zoo._weights import PACKAGED

NAMES = sorted(path.name for path in PACKAGED.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def digits():
    data = MNIST5kDataModule(eval_batch_size=250)
    data.prepare_data()
    data.setup("test")
    return list(data.test_dataloader())


def test_there_are_some():
    assert "spiking_cnn_nano.mnist5k_t4" in NAMES
    assert set(NAMES) <= set(zoo.list_models(pretrained=True))


@pytest.mark.parametrize("name", NAMES)
def test_recorded_accuracy(name, digits):
    weights = zoo.describe(name).weights[name.partition(".")[2]]
    model = zoo.load(name)
    assert not model.training
    with torch.no_grad():
        hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in digits)
    recorded = weights.metrics["test/acc1"]
    assert recorded >= 0.97
    assert hits / 1000 == pytest.approx(recorded, abs=0.003)  # sums round differently between machines
    assert weights.command
    assert weights.seed is not None
    size = (PACKAGED / name / "model.safetensors").stat().st_size
    assert size < 1_000_000
