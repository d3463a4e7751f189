"""Files of other people: recognised by their tensors, or refused with what does not fit."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
import torch

import zoo
from cli.main import main
from tests.zoo.test_checkpoints import Payload, sew_keys_of_the_authors
from zoo._registry import get_entry

TINY = {"layers": [1, 1], "planes": [8, 16], "stem": "3x3"}


@pytest.fixture
def nano(tmp_path):
    """A checkpoint as training scripts write them: tensors, settings, NumPy's numbers."""
    model = zoo.create("spikingresformer_nano", num_classes=7, in_chans=3)
    content = {
        "model": {f"module.{k}": v for k, v in model.state_dict().items()},
        "args": argparse.Namespace(lr=1e-3, opt="adamw"),
        "max_acc1": np.float64(71.5),
        "epoch": np.int64(3),
    }
    torch.save(content, tmp_path / "nano.pth")
    return tmp_path / "nano.pth", model


def test_recognised_by_its_tensors(nano, tmp_path):
    path, model = nano
    fits = zoo.recognize(zoo.read_checkpoint(path).state)
    assert fits[0].name == "spikingresformer_nano"
    assert fits[0].arguments == {"num_classes": 7, "in_chans": 3}
    assert [one.faults for one in fits] == sorted(one.faults for one in fits)
    assert all(one.faults for one in fits[1:])
    folder = zoo.import_checkpoint(path, tmp_path / "out", licence="mit", url="https://example.org/nano")
    again = zoo.load(f"local-dir:{folder}")
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    own = json.loads((folder / "config.json").read_text())["fulgurite"]
    assert own["origin"]["name"] == "nano.pth"
    assert own["metrics"] == {}
    card = (folder / "README.md").read_text()
    for text in ("[nano.pth](https://example.org/nano), licence: mit", own["origin"]["sha256"], "2403.14302"):
        assert text in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize("container", ["module.", ""])
def test_keys_of_the_authors_are_mapped(container, tiny, tmp_path):
    theirs = sew_keys_of_the_authors(tiny("sew_resnet18").state_dict(), container)
    found = zoo._import.fit(theirs, get_entry("sew_resnet18"), {**TINY})
    assert not found.faults
    assert found.arguments["num_classes"] == 5
    torch.save({"model": theirs}, tmp_path / "sew.pth")
    folder = zoo.import_checkpoint(tmp_path / "sew.pth", tmp_path / "out", "sew-resnet18", **TINY)
    assert zoo.load(f"local-dir:{folder}").num_classes == 5


def test_what_does_not_fit_is_listed(nano, tmp_path):
    path, _ = nano
    state = zoo.read_checkpoint(path).state
    state["stranger.weight"] = torch.zeros(3)
    gone = next(k for k in state if k.endswith("running_mean"))
    del state[gone]
    first = next(iter(state))
    state[first] = torch.zeros(2, 2)
    torch.save(state, path)
    with pytest.raises(zoo.UnrecognizedError, match="fits no entry; the nearest are") as caught:
        zoo.import_checkpoint(path, tmp_path / "out")
    nearest = str(caught.value).splitlines()[1]
    assert nearest.startswith("  spikingresformer_nano: ")
    for text in (f"1 missing ({gone})", "1 unexpected (stranger.weight)", f"{first}: 2x2 for"):
        assert text in nearest
    assert not (tmp_path / "out").exists()


def test_entries_with_equal_tensors(tmp_path):
    torch.save(zoo.create("spikformer_nano").state_dict(), tmp_path / "a.pth")
    with pytest.raises(zoo.UnrecognizedError, match=r"fits sdt_nano, spikformer_nano alike.*--as sdt_nano"):
        zoo.import_checkpoint(tmp_path / "a.pth", tmp_path / "out")
    folder = zoo.import_checkpoint(tmp_path / "a.pth", tmp_path / "out", "spikformer_nano")
    assert zoo.load(f"local-dir:{folder}").architecture == "spikformer_nano"


def test_the_wrong_name(nano, tmp_path):
    with pytest.raises(zoo.UnrecognizedError, match=r"does not fit spiking_cnn_nano: .*; it fits spikingres"):
        zoo.import_checkpoint(nano[0], tmp_path / "out", "spiking_cnn_nano")


def test_the_command(nano, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["import", "nano.pth", "--as", "spikingresformer-nano", "--time-steps", "2"]
    main([*words, "--arg", "lenth_from=map", "--licence", "mit"])
    out = capsys.readouterr().out
    assert "nano.pth is spikingresformer_nano with K = 7: imported/nano" in out
    assert zoo.load("local-dir:imported/nano").time_steps == 2
    for options, message in (
        (["--arg", "group_size"], "--arg needs NAME=VALUE"),
        (["--arg", "group_sizes=2"], "did you mean 'group_size'"),
        (["--num-classes", "10"], "7x64 for 10x64"),
        (["--as", "spikingresformer-nona"], "did you mean 'spikingresformer_nano'"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*words, *options])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["import", "nothing.pth"])
    assert "no such checkpoint: nothing.pth" in capsys.readouterr().err


def test_code_in_the_file(tmp_path):
    content = {"model": zoo.create("spiking_cnn_nano").state_dict(), "args": Payload()}
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(zoo.CheckpointError, match="contains pickled code"):
        zoo.import_checkpoint(tmp_path / "bad.pth", tmp_path / "out")
