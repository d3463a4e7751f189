"""Files of other people: recognised by their tensors, or refused with what does not fit."""

from __future__ import annotations

import argparse
import json
import re
import sys

import numpy as np
import pytest
import torch

import zoo
from cli.main import main
from tests.zoo.files.test_checkpoints import Payload, ms_keys_of_the_authors, sew_keys_of_the_authors
from tests.zoo.models import test_spiking_transformers as transformers
from zoo.recognize import fit
from zoo.registry import get_entry

TINY = {"layers": [1, 1], "planes": [8, 16], "stem": "3x3"}


@pytest.fixture(scope="module", autouse=True)
def built_once():
    """Every entry is compared with every file, which only reads it: one network without numbers for all."""
    module, built = sys.modules["zoo.recognize"], {}
    build = module._on_meta

    def on_meta(entry, arguments):
        key = entry.name, repr(sorted(arguments.items()))
        if key not in built:
            built[key] = build(entry, arguments)
        return built[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_on_meta", on_meta)
        yield


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
    found = fit(theirs, get_entry("sew_resnet18"), {**TINY})
    assert not found.faults
    assert found.arguments["num_classes"] == 5
    torch.save({"model": theirs}, tmp_path / "sew.pth")
    folder = zoo.import_checkpoint(tmp_path / "sew.pth", tmp_path / "out", "sew-resnet18", **TINY)
    assert zoo.load(f"local-dir:{folder}").num_classes == 5


def qcfs_keys_of_the_authors(state):
    """Parallel's file: stages ``conv2_x`` on, blocks as a sequence, thresholds named ``thresh``."""
    parts = {"conv1": "0", "bn1": "1", "act1": "2", "conv2": "3", "bn2": "4"}
    theirs = {}
    for key, value in state.items():
        new = re.sub(r"^(conv1|bn1|act1)\.", lambda m: f"conv1.{parts[m[1]]}.", key)
        if found := re.fullmatch(r"layer(\d)\.(\d+)\.(\w+)\.(.+)", new):
            stage, block, part, rest = found.groups()
            place = {"downsample": "shortcut", "act2": "act"}.get(part)
            place = place or f"residual_function.{parts[part]}"
            new = f"conv{int(stage) + 1}_x.{block}.{place}.{rest}"
        theirs[f"module.{new.replace('v_threshold', 'thresh')}"] = value
    return theirs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("sew_resnet50", lambda state: sew_keys_of_the_authors(state, "module.")),
        ("ms_resnet34", lambda state: ms_keys_of_the_authors(state, deep=False)),
        ("ms_resnet104", lambda state: ms_keys_of_the_authors(state, deep=True)),
        ("qcfs_resnet18", qcfs_keys_of_the_authors),
        ("qkformer_10_384", transformers.qkformer_on("attn", "fc", False)),
        ("metaspikformer_8_512", transformers.metaspikformer_file),
        ("spikingresformer_l", lambda state: {f"module.{k}": v for k, v in state.items()}),
        ("sdt_8_512", transformers.sdt_file),
        ("spikformer_8_512", dict),
        ("spiking_vgg16", dict),
        ("lmht_vgg13", dict),
        ("spikingresformer_dvsg", dict),
    ],
)
def test_every_family_is_recognised_by_itself(name, theirs):
    """Published sizes, in the names that the authors' files have; Spikformer and SDT V1 share theirs."""
    with torch.device("meta"):
        shapes = get_entry(name).fn(num_classes=13).state_dict()
    state = {key: torch.ones((), dtype=value.dtype).expand(value.shape) for key, value in shapes.items()}
    names = {key.removeprefix("module."): value for key, value in theirs(state).items()}  # as when read
    exact = [one for one in zoo.recognize(names) if not one.faults]
    twin = name.replace("sdt", "spikformer") if "sdt" in name else name.replace("spikformer", "sdt")
    assert name in {one.name for one in exact}
    assert {one.name for one in exact} <= {name, twin}
    assert all(one.arguments == {"num_classes": 13} for one in exact)


def test_why_an_entry_refuses_a_file(tmp_path):
    small = {"layers": [1, 1], "planes": [4, 8]}
    state = zoo.create("qcfs_resnet18", **small).state_dict()
    state["act1.v_threshold"] = torch.tensor(-0.5)
    torch.save(state, tmp_path / "a.pth")
    for name in ("qcfs_resnet18", None):
        with pytest.raises(zoo.UnrecognizedError, match=r"is -0\.5, but a neuron needs a positive"):
            zoo.import_checkpoint(tmp_path / "a.pth", tmp_path / "out", name, **small)


def test_levels_are_in_no_file(tmp_path):
    model = zoo.create("qcfs_resnet18", layers=(1, 1), planes=(4, 8))
    torch.save({"model": model.state_dict()}, tmp_path / "a.pth")
    small = {"layers": [1, 1], "planes": [4, 8]}
    with pytest.warns(UserWarning, match="how many levels L"):
        folder = zoo.import_checkpoint(tmp_path / "a.pth", tmp_path / "out", "qcfs_resnet18", **small)
    assert "L = 4 was taken" in (folder / "README.md").read_text()
    folder = zoo.import_checkpoint(tmp_path / "a.pth", tmp_path / "out", "qcfs_resnet18", levels=8, **small)
    assert "was taken" not in (folder / "README.md").read_text()
    assert zoo.load(f"local-dir:{folder}").levels == 8


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
