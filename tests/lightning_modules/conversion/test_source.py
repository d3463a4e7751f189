"""Where the source of a conversion may come from, and what is refused."""

import pytest
import torch

import zoo
from lightning_modules import ClassificationTask
from lightning_modules.source import Calibration, Source, as_plain

TINY = {"plan": [[4], [6]], "hidden": 8, "pool_size": 2}


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return zoo.create("qcfs_vgg16", num_classes=6, in_chans=1, **TINY).eval()


@pytest.fixture
def run(tmp_path, trainer, tiny_data):
    """The folder of a run of one step."""
    task = ClassificationTask("qcfs_vgg16", {**TINY, "levels": 8}, num_classes=6, in_chans=1)
    fit = trainer(max_steps=1)
    fit.fit(task, tiny_data())
    fit.save_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    return tmp_path / "run", task.model.eval()


def same(a, b):
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.equal(a(x), b(x))


def test_a_run_is_its_best_checkpoint(run, tmp_path, monkeypatch):
    folder, model = run
    monkeypatch.chdir(tmp_path)
    places = (str(folder), "run", str(folder / "checkpoints" / "last.ckpt"))
    for place in places:
        loaded = Source(model=place).load(num_classes=6, in_chans=1)
        assert same(loaded, model), place
        assert loaded.levels == 8, "L is in no state dict, but in the run's settings"
        assert not loaded.training
    arguments = {**TINY, "levels": 8}
    for place in places:
        assert same(Source(model="qcfs_vgg16", model_args=arguments, weights=place).load(6, 1), model)
    best = folder / "checkpoints" / "best.ckpt"
    best.write_bytes(b"not a checkpoint")
    with pytest.raises(zoo.CheckpointError, match=r"best\.ckpt"):
        Source(model=str(folder)).load()


def test_folders_of_the_zoo(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    zoo.save(tiny, "out")
    for place in ("out", "local-dir:out", str(tmp_path / "out")):
        assert same(Source(model=place).load(6, 1), tiny)


def test_random_weights_must_be_asked_for():
    built = Source(model="qcfs_vgg16", model_args=TINY, pretrained=False).load(num_classes=7, in_chans=2)
    assert (built.num_classes, built.in_chans) == (7, 2)
    assert Source(model="timm/resnet10t", pretrained=False).load(num_classes=4).num_classes == 4
    with pytest.raises(FileNotFoundError, match="qcfs_vgg16 has no weights"):
        Source(model="qcfs_vgg16", model_args=TINY).load(6, 1)


def test_a_name_of_the_zoo_wins_over_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qcfs_resnet20").mkdir()
    assert Source(model="qcfs_resnet20", pretrained=False).load(10, 3).architecture == "qcfs_resnet20"


def test_what_does_not_fit_the_data_is_refused(tiny, tmp_path):
    zoo.save(tiny, tmp_path / "out")
    place = str(tmp_path / "out")
    with pytest.raises(ValueError, match="num_classes = 6, but the data have num_classes = 10"):
        Source(model=place).load(num_classes=10, in_chans=1)
    with pytest.raises(ValueError, match="in_chans = 1, but the data have in_chans = 3"):
        Source(model=place).load(num_classes=6, in_chans=3)
    with pytest.raises(ValueError, match="trained for these classes"):  # never a fresh classifier
        Source(model="qcfs_vgg16", model_args=TINY, weights=place).load(num_classes=10, in_chans=1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "qcfs_vgg61"}, zoo.UnknownModelError, "did you mean 'qcfs_vgg16'"),
        ({"model": "runs/nothing"}, FileNotFoundError, "once fulgurite fit has trained it"),
        ({"model": "qcfs_vgg16", "weights": "nothing.ckpt"}, FileNotFoundError, "nothing.ckpt"),
        ({"model": "qcfs_vgg16", "model_args": {"levls": 4}, "pretrained": False}, TypeError, "'levels'"),
        ({"model": "empty"}, FileNotFoundError, "neither best.ckpt nor last.ckpt"),
    ],
)
def test_what_is_missing_names_itself(options, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    with pytest.raises(error, match=message):
        Source(**options).load(10, 3)


def test_mappings_are_read_strictly():
    given = {"model": "qcfs_vgg16", "model_args": {"levels": 4}, "pretrained": False}
    assert as_plain("source", Source, given) == Source(**given)
    assert as_plain("source", Source, Source(**given)) == Source(**given)
    with pytest.raises(ValueError, match="source has no key 'wieghts'; did you mean 'weights'"):
        as_plain("source", Source, {"model": "qcfs_vgg16", "wieghts": "x"})
    with pytest.raises(ValueError, match=r"source: .*'model'"):
        as_plain("source", Source, {})
    assert as_plain("calibration", Calibration, {"samples": 0}).batch_size is None


def test_calibration_images_come_from_the_training_part(tiny_data):
    data = tiny_data()
    data.setup()
    images = Calibration(samples=5, batch_size=2).images(data)
    assert [len(x) for x, _ in images] == [2, 2, 1]
    with pytest.raises(ValueError, match="has no calibration_dataloader"):
        Calibration().images(object())
