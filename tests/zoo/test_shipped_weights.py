"""The weights in the package reach the accuracy that stands beside them."""

import os

import pytest
import torch

import zoo
from datamodules import CIFAR10DataModule, MNIST5kDataModule, NMNISTDataModule
from zoo.files.card import write_card
from zoo.files.description import read_description
from zoo.files.layout import PACKAGED
from zoo.tokens.uncert import Uncert

NAMES = sorted(path.name for path in PACKAGED.iterdir() if path.is_dir())
IMAGES = [name for name in NAMES if ".mnist5k_" in name]
EVENTS = [name for name in NAMES if ".nmnist_" in name]
PICTURES = [name for name in NAMES if ".cifar10_" in name]


@pytest.fixture(scope="module")
def digits():
    data = MNIST5kDataModule(eval_batch_size=250)
    data.prepare_data()
    data.setup("test")
    return list(data.test_dataloader())


def test_there_are_some():
    assert "spiking_cnn_nano.mnist5k_t4" in NAMES
    assert set(NAMES) <= set(zoo.list_models(pretrained=True))


def test_those_for_an_entry_s_own_input_are_its_first():
    tags = list(zoo.describe("spikingresformer_nano").weights)
    assert tags[0] == "mnist5k_t4", "its own input is a grey digit"
    assert "cifar10_t1" in tags
    assert zoo.load("spikingresformer_nano").pretrained_cfg["input_size"] == (1, 28, 28)


def test_all_of_them_are_tested():
    assert sorted(IMAGES + EVENTS + PICTURES) == NAMES


@pytest.mark.parametrize("name", PICTURES)
def test_what_is_recorded_of_networks_for_pictures(name):
    weights = zoo.describe(name).weights[name.partition(".")[2]]
    assert weights.metrics["test/acc1"] >= (0.66 if name.startswith("spikingresformer") else 0.8)
    assert (weights.measured["split"], weights.measured["samples"]) == ("test", 10_000)
    assert not weights.measured.get("chosen"), "the checkpoint was chosen on training images"
    assert weights.command
    assert weights.seed is not None
    assert weights.dataset == "CIFAR-10, copy as images"
    assert (PACKAGED / name / "model.safetensors").stat().st_size < 2_000_000
    model = zoo.load(name)
    assert {p.dtype for p in model.parameters()} == {torch.float32}, "stored as float16, computed in float32"
    assert tuple(model.pretrained_cfg["input_size"]) == (3, 32, 32)
    with torch.no_grad():
        assert model(torch.randn(4, 3, 32, 32)).std(0).min() > 0, "it answers to what it sees"


@pytest.mark.skipif("CIFAR10_JPEG" not in os.environ, reason="CIFAR10_JPEG names no folder of images")
@pytest.mark.parametrize("name", PICTURES)
def test_recorded_accuracy_on_pictures(name):
    recorded = zoo.describe(name).weights[name.partition(".")[2]].metrics["test/acc1"]
    model = zoo.load(name)
    data = CIFAR10DataModule(folder=os.environ["CIFAR10_JPEG"], eval_batch_size=250)
    data.prepare_data()
    data.setup("test")
    with torch.no_grad():
        hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in data.test_dataloader())
    assert hits / 10_000 == pytest.approx(recorded, abs=0.002)  # sums round differently between machines


@pytest.mark.parametrize("name", EVENTS)
def test_what_is_recorded_of_networks_for_events(name):
    weights = zoo.describe(name).weights[name.partition(".")[2]]
    assert weights.metrics["test/acc1"] >= 0.95
    assert weights.command
    assert weights.seed is not None
    assert (PACKAGED / name / "model.safetensors").stat().st_size < 1_000_000
    model = zoo.load(name)
    channels, *size = model.pretrained_cfg["input_size"]
    assert channels == 2
    frames = torch.poisson(torch.full((model.time_steps, 3, channels, *size), 0.2))
    with torch.no_grad():
        assert model(frames).std(0).min() > 0, "it answers to what it sees"


@pytest.mark.skipif("NMNIST_SMALL" not in os.environ, reason="NMNIST_SMALL names no folder of recordings")
@pytest.mark.parametrize("name", EVENTS)
def test_recorded_accuracy_on_recordings(name, tmp_path):
    """Of the 100 test recordings that the weights were measured on."""
    recorded = zoo.describe(name).weights[name.partition(".")[2]].metrics["test/acc1"]
    model = zoo.load(name)
    data = NMNISTDataModule(
        os.environ["NMNIST_SMALL"],
        cache_dir=str(tmp_path),
        time_steps=model.time_steps,
        split_by="time",
        eval_batch_size=50,
    )
    data.prepare_data()
    data.setup("test")
    with torch.no_grad():
        hits = [model(x.transpose(0, 1)).argmax(1) == y for x, y in data.test_dataloader()]
    assert float(torch.cat(hits).float().mean()) == pytest.approx(recorded, abs=0.011)


@pytest.mark.parametrize("name", IMAGES)
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


def test_the_spiking_form_answers_like_the_trained_one(digits):
    model = zoo.load("ge2mst_nano", pretrained=True)
    x = digits[0][0]
    with torch.no_grad():
        want, got = model(x), model.to_spiking()(x)
        assert torch.equal(got.argmax(1), want.argmax(1))
        # sums in another order put a potential within rounding of a level onto its other side
        assert ((got - want).abs().amax(1) < 1e-3).float().mean() > 0.97
        exact = model.double()
        torch.testing.assert_close(exact.to_spiking()(x.double()), exact(x.double()), rtol=0, atol=1e-9)


class Reversed(Uncert):
    """What Uncert would drop."""

    def forward(self, x, point):
        return -super().forward(x, point)


def test_important_tokens_carry_the_answer(digits):
    model = zoo.load("spikformer_nano", pretrained=True)
    x, y = (torch.cat(part) for part in zip(*digits, strict=True))

    def hits(method, **settings):
        with torch.no_grad():
            return int((zoo.reduce_tokens(model, method, keep=0.3, **settings)(x).argmax(1) == y).sum())

    best, worst = hits("uncert"), hits(Reversed())
    chance = sum(hits("random", seed=seed) for seed in range(3)) / 3
    assert best >= chance - 5  # digits do without most tokens, so both lie within noise
    assert worst < chance - 100
    assert hits("uncert", centre=False, fluctuation_weight=0.0) < best - 100  # what the centring is for


def test_the_card_of_an_analog_network_has_no_time():
    card = (PACKAGED / "ge2mst_nano.mnist5k_t4" / "README.md").read_text(encoding="utf-8")
    assert "name: top-1 accuracy\n" in card
    assert "None" not in card


@pytest.mark.parametrize("folder", sorted(p for p in PACKAGED.iterdir() if p.is_dir()), ids=lambda p: p.name)
def test_the_card_is_what_the_description_says(folder):
    size = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    figures = sorted(p.name for p in (folder / "figures").glob("*.png"))
    assert (folder / "README.md").read_text() == write_card(
        read_description(folder), size=size, figures=figures
    )
