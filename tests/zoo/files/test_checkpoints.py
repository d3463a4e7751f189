"""Checkpoint files of every form: read without running code, loaded strictly or not at all."""

from __future__ import annotations

import io
import pickle
import re
import zipfile

import pytest
import torch
from safetensors.torch import save_file

import zoo
from zoo.factory import load_weights
from zoo.models import ms_resnet, sew_resnet
from zoo.registry import get_entry

NAME = "spiking_cnn_nano"


@pytest.fixture
def model(tiny):
    return tiny(NAME)


@pytest.fixture
def state(tiny):
    other = tiny(NAME)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter))
    return other.state_dict()


def load(model, path, **kwargs):
    load_weights(model, path, get_entry(NAME), **kwargs)


def refused(model, path, message, **kwargs):
    """The file is refused with ``message`` and the model is bit for bit what it was."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(zoo.CheckpointError, match=message):
        load(model, path, **kwargs)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


FORMS = {
    "bare": lambda s: s,
    "model": lambda s: {"model": s, "epoch": 3, "max_acc1": 71.0},
    "state_dict": lambda s: {"state_dict": s},
    "ddp": lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
    "compiled": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "both": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    "profiled": lambda s: {**s, "total_ops": torch.zeros(1), "stem.total_params": torch.zeros(1)},
    "lightning": lambda s: {
        "pytorch-lightning_version": "2.6.6",
        "state_dict": {**{f"model.{k}": v for k, v in s.items()}, "criterion.weight": torch.zeros(2)},
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_accepted_forms(form, model, state, tmp_path):
    torch.save(FORMS[form](state), tmp_path / "c.pth")
    load(model, tmp_path / "c.pth")
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(suffix, dtype, model, state, tmp_path):
    cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    path = tmp_path / f"c{suffix}"
    save_file(cast, path) if suffix == ".safetensors" else torch.save(cast, path)
    load(model, path)
    for key, value in model.state_dict().items():
        assert value.dtype == state[key].dtype
        assert torch.equal(value, cast[key].to(value.dtype)), key


def test_through_zoo_load(state, tmp_path):
    torch.save({"model": state}, tmp_path / "c.pth")
    arguments = {"channels": (8, 8, 16), "num_classes": 5, "in_chans": 3, "time_steps": 2}
    model = zoo.load(NAME, weights=tmp_path / "c.pth", **arguments)
    assert not model.training
    assert torch.equal(model.stem[0].weight, state["stem.0.weight"])


def test_missing_unexpected_misshapen(model, state, tmp_path):
    del state["levels.1.conv.0.weight"]
    state["stranger.weight"] = torch.zeros(3)
    state["stem.0.weight"] = torch.zeros(8, 3, 5, 5)
    torch.save(state, tmp_path / "c.pth")
    refused(
        model,
        tmp_path / "c.pth",
        r"nothing was loaded: 1 missing: levels\.1\.conv\.0\.weight; 1 unexpected: stranger\.weight;"
        r" 1 misshapen: stem\.0\.weight: expected 8x3x3x3, got 8x3x5x5",
    )


def test_other_networks_are_refused(model, tiny, tmp_path):
    torch.save(tiny("sew_resnet18").state_dict(), tmp_path / "c.pth")
    refused(model, tmp_path / "c.pth", "missing: stem.*and [0-9]+ more.*unexpected: conv1")


def test_non_finite_weights(model, state, tmp_path):
    state["stem.1.running_var"][2] = torch.inf
    torch.save(state, tmp_path / "c.pth")
    refused(model, tmp_path / "c.pth", r"with NaN or infinite values: stem\.1\.running_var")


def test_other_number_of_classes(tiny, state, tmp_path):
    torch.save(state, tmp_path / "c.pth")
    model = tiny(NAME, num_classes=7)
    refused(model, tmp_path / "c.pth", "give num_classes=... explicitly")
    fresh = model.classifier.weight.clone()
    with pytest.warns(UserWarning, match="the classifier of 7 classes starts from random weights"):
        load(model, tmp_path / "c.pth", explicit={"num_classes": 7})
    assert torch.equal(model.classifier.weight, fresh)
    assert torch.equal(model.stem[0].weight, state["stem.0.weight"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_cut_off(suffix, share, model, state, tmp_path):
    path = tmp_path / f"c{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(model, path, r"cut off\?|no checkpoint")


class Payload:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code from a checkpoint ran')",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("old", [False, True])
def test_pickled_code_is_not_run(old, model, state, tmp_path):
    content = {"model": state, "extra": Payload()}
    torch.save(content, tmp_path / "c.pth", _use_new_zipfile_serialization=not old)
    refused(model, tmp_path / "c.pth", "contains pickled code")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(content))
    refused(model, tmp_path / "plain.pth", "contains pickled code|cannot be read")
    torch.save(model, tmp_path / "whole.pth")  # a module, not its tensors
    refused(model, tmp_path / "whole.pth", "contains pickled code")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello, this is no checkpoint at all", "no checkpoint|cannot be read"),
        ([1, 2], "holds a list, not a state dict"),
        ({"epoch": 3}, "holds no tensors under 'model' or 'state_dict'; it has: epoch"),
    ],
)
def test_foreign_files(content, message, model, tmp_path):
    path = tmp_path / "c.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    refused(model, path, message)


def test_a_zip_that_is_no_checkpoint(model, tmp_path):
    with zipfile.ZipFile(tmp_path / "c.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(model, tmp_path / "c.pth", "cannot be read|no checkpoint|pickled code")


def test_hash(model, state, tmp_path):
    save_file(state, tmp_path / "c.safetensors")
    refused(model, tmp_path / "c.safetensors", "is not the file that was published", sha256="0" * 64)


def test_missing_files(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load(model, tmp_path / "nothing.pth")
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        load(model, tmp_path)


# -- the authors' own key names --------------------------------------------------------------------


def sew_keys_of_the_authors(state, container):
    """Their containers hold convolution and norm as ``module.0`` and ``module.1``."""
    renamed = {}
    for key, value in state.items():
        new = re.sub(r"^(layer.*\.)conv(\d)\.", rf"\1conv\2.{container}0.", key)
        new = re.sub(r"^(layer.*\.)bn(\d)\.", rf"\1conv\2.{container}1.", new)
        new = re.sub(r"(downsample\.)([01])\.", rf"\g<1>0.{container}\2.", new)
        renamed[new] = value
    return renamed


@pytest.mark.parametrize("container", ["module.", ""])
@pytest.mark.parametrize("name", ["sew_resnet18", "sew_resnet50"])
def test_sew_resnet_of_the_authors(name, container, tiny, tmp_path):
    state = tiny(name).state_dict()
    theirs = sew_keys_of_the_authors(state, container)
    assert f"layer1.0.conv1.{container}0.weight" in theirs
    assert f"layer2.0.downsample.0.{container}1.running_var" in theirs
    assert len(theirs) == len(state)
    mapped = sew_resnet.checkpoint_filter_fn(theirs, tiny(name))
    assert set(mapped) == set(state)
    assert all(mapped[k] is state[k] for k in state)
    torch.save({"model": theirs}, tmp_path / "c.pth")
    model = tiny(name)
    load_weights(model, tmp_path / "c.pth", get_entry(name))
    assert set(sew_resnet.checkpoint_filter_fn(state, model)) == set(state)


def ms_keys_of_the_authors(state, deep):
    """Stages ``conv2_x`` on, blocks as a sequence with two neurons, norms behind a ``bn`` level."""
    places = {"conv1": "1", "bn1": "2.bn", "conv2": "4", "bn2": "5.bn"}
    renamed = {}
    for key, value in state.items():
        new = re.sub(r"^bn1\.", "conv1.3.bn." if deep else "conv1.1.bn.", key)
        if not deep:
            new = re.sub(r"^conv1\.weight", "conv1.0.weight", new)
        found = re.match(r"layer(\d)\.(\d+)\.(conv1|bn1|conv2|bn2|downsample\.[01])\.(.*)", new)
        if found:
            stage, block, part, rest = found.groups()
            if part.startswith("downsample"):
                place = int(part[-1]) + deep
                inner = f"shortcut.{place}" + (".bn" if part.endswith("1") else "")
            else:
                inner = f"residual_function.{places[part]}"
            new = f"conv{int(stage) + 1}_x.{block}.{inner}.{rest}"
        renamed[new] = value
    return renamed


@pytest.mark.parametrize(
    ("name", "examples"),
    [
        ("ms_resnet18", ["conv1.0.weight", "conv1.1.bn.weight", "conv2_x.0.shortcut.0.weight"]),
        ("ms_resnet104", ["conv1.2.bias", "conv1.3.bn.bias", "conv2_x.0.shortcut.2.bn.running_var"]),
    ],
)
def test_ms_resnet_of_the_authors(name, examples, tiny, tmp_path):
    state = tiny(name).state_dict()
    theirs = ms_keys_of_the_authors(state, deep=name == "ms_resnet104")
    assert {*examples, "conv3_x.0.residual_function.4.weight", "fc.bias"} <= set(theirs)
    mapped = ms_resnet.checkpoint_filter_fn(theirs, tiny(name))
    assert set(mapped) == set(state)
    assert all(mapped[k] is state[k] for k in state)
    torch.save(theirs, tmp_path / "c.pth")
    load_weights(tiny(name), tmp_path / "c.pth", get_entry(name))
    assert ms_resnet.checkpoint_filter_fn(state, tiny(name)) is state


def test_a_file_of_something_else_is_called_no_checkpoint(tmp_path):
    (tmp_path / "notes.pth").write_text("hello there")  # 'h' is an instruction of pickle that asks for more
    with pytest.raises(zoo.CheckpointError, match=r"notes.pth is no checkpoint: it holds neither"):
        zoo.read_checkpoint(tmp_path / "notes.pth")


def test_read_checkpoint_needs_no_model(state, tmp_path):
    buffer = io.BytesIO()
    torch.save({"model": state}, buffer)
    (tmp_path / "c.pth").write_bytes(buffer.getvalue())
    found = zoo.read_checkpoint(tmp_path / "c.pth")
    assert set(found.state) == set(state)
    assert not found.ours
