"""Folders that `zoo.save` writes: whole or not at all, and rebuilt from their own description."""

from __future__ import annotations

import errno
import json

import pytest
import timm
import torch
from safetensors import safe_open
from torch import nn

import zoo
from zoo.files import folder as files_folder

NAME = "spiking_cnn_nano"


def logits(model, images):
    with torch.no_grad():
        return model.eval()(images(), steps=True)


def test_roundtrip(case, tiny, images, tmp_path):
    model = tiny(case)
    folder = zoo.save(model, tmp_path / "out")
    again = zoo.load(f"local-dir:{folder}")
    assert not again.training
    assert again.architecture == case
    assert (again.num_classes, again.in_chans, again.time_steps) == (5, 3, model.time_steps)
    assert torch.equal(logits(again, images), logits(model, images))
    assert list(again.state_dict()) == list(model.state_dict())


def test_a_compact_file_loses_nothing(tiny, images, tmp_path):
    model = tiny(NAME).half().float()  # rounded, so that float16 holds every weight
    model.classifier.bias.data.fill_(1 / 3)  # which it cannot hold
    whole, compact = zoo.save(model, tmp_path / "whole"), zoo.save(model, tmp_path / "small", compact=True)
    again = zoo.load(f"local-dir:{compact}")
    assert {v.dtype for v in again.state_dict().values() if v.is_floating_point()} == {torch.float32}
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    assert torch.equal(logits(again, images), logits(model, images))
    with safe_open(compact / "model.safetensors", "pt") as file:
        assert file.get_tensor("classifier.weight").dtype == torch.float16
        assert file.get_tensor("classifier.bias").dtype == torch.float32
    size, full = ((folder / "model.safetensors").stat().st_size for folder in (compact, whole))
    assert size < 0.7 * full  # names take space, too
    by_timm = timm.create_model(f"local-dir:{compact}", pretrained=True).eval()
    assert by_timm.classifier.weight.dtype == torch.float32


def test_a_compact_file_of_halves_keeps_them(tiny, tmp_path):
    model = tiny(NAME)
    model.classifier.half()
    folder = zoo.save(model, tmp_path / "small", compact=True)
    want = {key: value.dtype for key, value in model.state_dict().items()}
    assert {
        key: v.dtype for key, v in zoo.read_checkpoint(folder / "model.safetensors").state.items()
    } == want


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("sew_resnet18", {"connect": "IAND", "zero_init_residual": True}),
        ("spiking_vgg11", {"neuron": "plif", "neuron_args": {"init_tau": 1.5}, "hidden": 0}),
        ("ms_resnet18", {"stem": "3x3", "neuron_args": {"surrogate": {"name": "atan", "alpha": 3.0}}}),
        ("spiking_resnet18", {"neuron": "psn", "num_classes": 0}),
        ("qcfs_vgg16", {"levels": 16, "order": "clip_first", "bias": False, "pool_size": 2}),
        ("qcfs_resnet20", {"activation": "qcfs"}),
    ],
)
def test_arguments_come_back(name, kwargs, tiny, images, tmp_path):
    model = tiny(name, **kwargs)
    again = zoo.load(str(zoo.save(model, tmp_path / "out")) + "/")
    assert repr(again.train()) == repr(model.train())
    assert torch.equal(logits(again, images), logits(model, images))


def test_what_the_folder_says(tiny, tmp_path):
    folder = zoo.save(
        tiny(NAME),
        tmp_path / "out",
        metrics={"test/acc1": 0.981},
        dataset="MNIST5k",
        command="fulgurite fit --config configs/stbp/mnist5k.yaml",
        seed=3,
        licence="apache-2.0",
        published={"test/acc1": 0.99},
        label_names=[str(i) for i in range(5)],
        pretrained_cfg={"mean": [0.5, 0.5, 0.5]},
    )
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == NAME
    assert config["model_args"]["channels"] == [8, 8, 16]
    assert config["pretrained_cfg"]["mean"] == [0.5, 0.5, 0.5]
    own = config["fulgurite"]
    assert (own["time_steps"], own["seed"], own["licence"]) == (2, 3, "apache-2.0")
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert file.metadata()["fulgurite"] == NAME
    card = (folder / "README.md").read_text()
    for text in ("license: apache-2.0", "MNIST5k", "test/acc1", "fulgurite fit", own["sha256"]):
        assert text in card


def test_timm_reads_the_folder(tiny, images, tmp_path):
    model = tiny(NAME)
    folder = zoo.save(model, tmp_path / "out")
    again = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert torch.equal(logits(again, images), logits(model, images))


def test_other_head_and_random_weights(tiny, tmp_path):
    folder = zoo.save(tiny(NAME), tmp_path / "out")
    with pytest.warns(UserWarning, match="starts from random weights"):
        model = zoo.load(f"local-dir:{folder}", num_classes=3)
    assert model.classifier.weight.shape[0] == 3
    random = zoo.load(f"local-dir:{folder}", pretrained=False)
    assert not torch.equal(random.stem[0].weight, model.stem[0].weight)
    assert zoo.load(f"local-dir:{folder}", time_steps=7).time_steps == 7


def test_entry_finds_a_folder_of_ones_own(tiny, images, tmp_path, monkeypatch):
    model = tiny(NAME)
    zoo.save(model, tmp_path / f"{NAME}.mine", metrics={"test/acc1": 0.5})
    monkeypatch.setenv("FULGURITE_WEIGHTS", str(tmp_path))
    assert f"{NAME}.mine" in zoo.list_models(f"{NAME}*", pretrained=True)
    assert zoo.describe(NAME).weights["mine"].metrics == {"test/acc1": 0.5}
    again = zoo.load(f"{NAME}.mine", pretrained=True)
    assert torch.equal(logits(again, images), logits(model, images))


def test_wrappers_are_looked_through(tiny, tmp_path):
    model = tiny(NAME)
    zoo.save(torch.compile(model), tmp_path / "out")
    assert list(zoo.load(f"local-dir:{tmp_path / 'out'}").state_dict()) == list(model.state_dict())


# -- refusals --------------------------------------------------------------------------------------


def test_not_rebuildable(tiny, tmp_path):
    target = tmp_path / "out"
    with pytest.raises(zoo.NotRebuildableError, match="Linear was not built by an entry"):
        zoo.save(nn.Linear(2, 2), target)
    changed = tiny(NAME)
    changed.head_drop = nn.Dropout(0.4)
    with pytest.raises(zoo.NotRebuildableError, match="was changed after it was built"):
        zoo.save(changed, target)
    changed = tiny(NAME)
    changed.levels[1].conv[0] = nn.Conv2d(8, 8, 5, padding=2)
    with pytest.raises(zoo.NotRebuildableError, match=r"levels\.1\.conv\.0"):
        zoo.save(changed, target)
    odd = tiny(NAME, neuron_args={"surrogate": zoo_surrogate()})
    with pytest.raises(zoo.NotRebuildableError, match="no plain value"):
        zoo.save(odd, target)
    assert not target.exists()


def zoo_surrogate():
    import spiking

    return spiking.get_surrogate("atan")


def test_full_disk_changes_nothing(tiny, images, tmp_path, monkeypatch):
    model = tiny(NAME)
    folder = zoo.save(model, tmp_path / "out")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(path, content):
        if path.name == "config.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(content)

    monkeypatch.setattr(files_folder, "write_bytes", full)
    with torch.no_grad():
        model.stem[0].weight.zero_()
    with pytest.raises(OSError, match="the disk is full; what was there is unchanged"):
        zoo.save(model, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]  # nothing half-written is left


def test_a_mixed_folder_is_noticed(tiny, tmp_path):
    """A kill between the renames leaves new weights beside an old description."""
    folder = zoo.save(tiny(NAME), tmp_path / "out")
    other = zoo.save(tiny(NAME, neuron_args={"tau": 3.0}), tmp_path / "other")
    changed = (other / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(changed[:-4] + b"\0\0\0\1")
    with pytest.raises(zoo.CheckpointError, match="is not the file that was published"):
        zoo.load(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("{", zoo.CheckpointError, "is no model description"),
        ("[]", zoo.CheckpointError, "is no model description"),
        ('{"architecture": "nobody_knows_it"}', zoo.UnknownModelError, "unknown model"),
    ],
)
def test_broken_descriptions(content, error, message, tiny, tmp_path):
    folder = zoo.save(tiny(NAME), tmp_path / "out")
    (folder / "config.json").write_text(content)
    with pytest.raises(error, match=message):
        zoo.load(f"local-dir:{folder}")


def test_places_that_hold_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        zoo.load(f"local-dir:{tmp_path / 'nothing'}")
    with pytest.raises(FileNotFoundError, match=r"neither config\.json"):
        zoo.load(f"local-dir:{tmp_path}")
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="is a file"):
        zoo.save(zoo.create(NAME), tmp_path / "file")


def test_preprocessing_and_labels_come_back(tiny, tmp_path):
    labels = ["a", "b", "c", "d", "e"]
    told = {"mean": [0.25, 0.5, 0.75], "input_size": [3, 40, 40], "crop_pct": 0.8}
    folder = zoo.save(tiny(NAME), tmp_path / "out", label_names=labels, pretrained_cfg=told)
    for model in (
        zoo.load(f"local-dir:{folder}"),
        timm.create_model(f"local-dir:{folder}", pretrained=True),
    ):
        assert model.label_names == labels
        assert model.pretrained_cfg["mean"] == (0.25, 0.5, 0.75)
        assert model.pretrained_cfg["input_size"] == (3, 40, 40)
        assert model.pretrained_cfg["crop_pct"] == 0.8
    again = zoo.save(zoo.load(f"local-dir:{folder}"), tmp_path / "again")
    assert json.loads((again / "config.json").read_text())["label_names"] == labels
    with pytest.raises(ValueError, match="2 label names for K = 5 classes"):
        zoo.save(tiny(NAME), tmp_path / "out", label_names=["a", "b"])
    model = zoo.load(f"local-dir:{folder}")
    model.reset_classifier(3)
    assert model.label_names is None
