"""Flipped bits, cut files, packed archives, mutated descriptions: refused by name, or loaded as they were."""

from __future__ import annotations

import io
import json
import random
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import zoo

NAME = "spiking_cnn_nano"
REFUSALS = (zoo.CheckpointError, zoo.UnknownModelError, ValueError, TypeError, FileNotFoundError)
RUNS = 40
LONG = 1500


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    model = zoo.create(NAME, channels=(4, 4, 8), num_classes=5, in_chans=1, time_steps=2).eval()
    folder = zoo.save(model, tmp_path_factory.mktemp("saved") / "out")
    state = model.state_dict()
    hyper = {"model": NAME, "model_args": {"channels": [4, 4, 8], "in_chans": 1}, "num_classes": 5}
    run = {
        "state_dict": {f"model.{k}": v for k, v in state.items()},
        "pytorch-lightning_version": "2.6",
        "hyper_parameters": hyper,
    }
    torch.save(run, folder / "best.ckpt")
    torch.save(state, folder / "authors.pth")
    return folder, state


def opened(folder: Path, name: str):
    """What opens a file of the folder, each by a door of its own."""
    arguments = {"channels": (4, 4, 8), "num_classes": 5, "in_chans": 1, "time_steps": 2}
    if name == "best.ckpt":
        return zoo.load(str(folder / name))
    if name == "authors.pth":
        return zoo.load(NAME, weights=folder / name, **arguments)
    if name == "model.safetensors":
        return zoo.load(NAME, weights=folder, **arguments)
    return zoo.load(f"local-dir:{folder}")


def damage(content: bytes, draw: random.Random) -> bytes:
    kind = draw.choice(("flip", "flip", "cut", "insert", "zeros"))
    at = draw.randrange(len(content))
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]
    if kind == "cut":
        return content[:at]
    if kind == "insert":
        return content[:at] + draw.randbytes(draw.randrange(1, 9)) + content[at:]
    return content[:at] + bytes(min(64, len(content) - at)) + content[at + 64 :]


def attack(saved, name: str, runs: int) -> None:
    folder, state = saved
    draw = random.Random(name)
    whole = (folder / name).read_bytes()
    refused = 0
    try:
        for _ in range(runs):
            (folder / name).write_bytes(damage(whole, draw))
            try:
                found = opened(folder, name).state_dict()
            except REFUSALS:
                refused += 1
            else:
                assert all(torch.equal(found[k], v) for k, v in state.items())
    finally:
        (folder / name).write_bytes(whole)
    assert refused > runs // 2


@pytest.mark.parametrize("name", ["model.safetensors", "best.ckpt", "authors.pth"])
def test_damaged_files(name, saved):
    attack(saved, name, RUNS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "best.ckpt", "authors.pth"])
def test_many_damaged_files(name, saved):
    attack(saved, name, LONG)


# -- descriptions ----------------------------------------------------------------------------------

ODD = (
    None,
    True,
    -1,
    0,
    10**12,
    10**400,
    1e308,
    float("nan"),
    "",
    "/etc/passwd",
    "hf-hub:a/b",
    "\ud800",
    [],
    {},
    [[1]],
    {"a": {}},
)


def places(value, path=()):
    """Paths to all values inside."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def mutate(content, draw: random.Random):
    content = json.loads(json.dumps(content))
    *way, key = draw.choice([path for path in places(content) if path])
    inner = content
    for step in way:
        inner = inner[step]
    if draw.random() < 0.2:
        del inner[key]
    else:
        inner[key] = draw.choice(ODD)
    return content


def mutations(saved, runs: int) -> None:
    folder, state = saved
    draw = random.Random(5)
    whole = (folder / "config.json").read_text()
    try:
        for _ in range(runs):
            changed = mutate(json.loads(whole), draw)
            (folder / "config.json").write_text(json.dumps(changed))
            try:
                found = zoo.load(f"local-dir:{folder}").state_dict()
            except REFUSALS:
                continue
            assert all(torch.equal(found[k], v) for k, v in state.items()), changed
    finally:
        (folder / "config.json").write_text(whole)


def test_mutated_descriptions(saved):
    mutations(saved, RUNS)


@pytest.mark.slow
def test_many_mutated_descriptions(saved):
    mutations(saved, LONG)


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("test_resnet", {"checkpoint_path": "ELSEWHERE"}),
        ("test_resnet", {"pretrained": True}),
        ("test_resnet", {"pretrained_cfg": {"file": "ELSEWHERE"}}),
        ("test_resnet", {"pretrained_cfg_overlay": {"file": "ELSEWHERE"}}),
        ("test_resnet", {"cache_dir": "ELSEWHERE"}),
        ("test_resnet", {"act_layer": "hf-hub:a/b"}),
        (NAME, {"neuron_args": {"surrogate": "../secret"}}),
        ("timm/hf-hub:a/b", {}),
        ("local-dir:ELSEWHERE", {}),
        ("hf-hub:a/b", {}),
        *[
            ("converted", {"source": source, "method": "qcfs", "time_steps": 2, "input_size": [3, 32, 32]})
            for source in (
                {"architecture": "timm/hf-hub:a/b"},
                {"architecture": "timm/local-dir:ELSEWHERE"},
                {"architecture": "timm/test_resnet", "model_args": {"checkpoint_path": "ELSEWHERE"}},
                {"architecture": "torchvision/retinanet_resnet50_fpn"},
                {"architecture": "torchvision/resnet18", "model_args": {"weights": "DEFAULT"}},
                {"architecture": "torchvision/resnet18", "model_args": {"weights_backbone": "DEFAULT"}},
                {"architecture": "converted", "model_args": {}},
            )
        ],
    ],
)
@pytest.mark.parametrize("pretrained", [None, False])
def test_descriptions_lead_nowhere(architecture, arguments, pretrained, saved, tmp_path, monkeypatch):
    import huggingface_hub

    def asked(*given, **told):
        raise AssertionError(f"the Hub was asked: {given} {told}")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", asked)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", asked)
    torch.save({}, tmp_path / "elsewhere.pth")
    text = json.dumps({"architecture": architecture, "num_classes": 10, "model_args": arguments})
    (tmp_path / "config.json").write_text(text.replace("ELSEWHERE", str(tmp_path / "elsewhere.pth")))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises((zoo.CheckpointError, zoo.UnknownModelError, ValueError, TypeError)):
        zoo.load(f"local-dir:{tmp_path}", pretrained=pretrained)


@pytest.mark.parametrize(
    "change",
    [
        {"num_classes": 60_000},
        {"num_classes": 10**9},
        {"model_args": {"channels": [60_000, 60_000]}},
        {"architecture": "spikformer_nano", "model_args": {"depth": 60_000}},
        {"architecture": "spikformer_nano", "model_args": {"depth": 10**6}},
        {"architecture": "vit_giant_patch14_224", "model_args": {}},
    ],
)
def test_descriptions_that_ask_for_too_much(change, saved, tmp_path, monkeypatch):
    folder, _ = saved
    described = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**described, "model_args": {}, **change}))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(zoo.CheckpointError, match=r"asks for|does not fit"):
        zoo.load(f"local-dir:{tmp_path}")


# -- archives and tensors --------------------------------------------------------------------------


def packed(content, mode) -> bytes:
    plain, other = io.BytesIO(), io.BytesIO()
    torch.save(content, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(other, "w", mode) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry.filename))
    return other.getvalue()


def test_packed_archives_are_not_unpacked(tmp_path):
    (tmp_path / "a.pth").write_bytes(packed({"a": torch.zeros(1 << 22)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(zoo.CheckpointError, match="is compressed"):
        zoo.read_checkpoint(tmp_path / "a.pth")


def test_views_that_repeat_what_a_file_holds(tmp_path):
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "a.pth")
    with pytest.raises(zoo.CheckpointError, match="more than the file holds"):
        zoo.read_checkpoint(tmp_path / "a.pth")
    one = torch.arange(6.0)
    torch.save({"a": one, "b": one.view(2, 3)}, tmp_path / "tied.pth")  # these are honest
    found = zoo.read_checkpoint(tmp_path / "tied.pth").state
    assert torch.equal(found["a"].view(2, 3), found["b"])
    torch.save(found, tmp_path / "tied.pth")  # nothing that was read hangs on the file


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_other_kinds_of_numbers(dtype, saved, tmp_path):
    _, state = saved
    weight = state["classifier.weight"]
    save_file({**state, "classifier.weight": weight.to(dtype)}, tmp_path / "w.safetensors")
    with pytest.raises(zoo.CheckpointError, match=r"of another kind: classifier\.weight"):
        zoo.load(NAME, weights=tmp_path / "w.safetensors", channels=(4, 4, 8), num_classes=5, in_chans=1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_network_comes_back_in_its_precision(dtype, tmp_path):
    model = zoo.create(NAME, channels=(4, 4, 8), num_classes=5).to(dtype)
    with torch.no_grad():
        model.classifier.weight.add_(torch.rand_like(model.classifier.weight) / 3)
    again = zoo.load(f"local-dir:{zoo.save(model, tmp_path / 'out')}").state_dict()
    assert all(torch.equal(again[k], v) and again[k].dtype == v.dtype for k, v in model.state_dict().items())


def test_numbers_of_others_are_not_rounded(saved, tmp_path):
    _, state = saved
    third = {**state, "classifier.bias": torch.full((5,), 1 / 3, dtype=torch.float64)}
    save_file(third, tmp_path / "w.safetensors")
    with pytest.raises(
        zoo.CheckpointError, match=r"would be rounded: classifier\.bias: float64 into float32"
    ):
        zoo.load(NAME, weights=tmp_path / "w.safetensors", channels=(4, 4, 8), num_classes=5, in_chans=1)


def test_one_broken_folder_hides_no_other(tmp_path, monkeypatch):
    for tag in ("broken", "deep", "list"):
        (tmp_path / f"{NAME}.{tag}").mkdir()
        text = {"broken": "{", "deep": "[" * 100_000, "list": "[1]"}[tag]
        (tmp_path / f"{NAME}.{tag}" / "config.json").write_text(text)
        (tmp_path / f"{NAME}.{tag}" / "model.safetensors").write_bytes(b"")
    zoo.save(zoo.create(NAME, num_classes=5), tmp_path / f"{NAME}.good")
    monkeypatch.setenv("FULGURITE_WEIGHTS", str(tmp_path))
    with pytest.warns(UserWarning, match="left out: .*is no model description"):
        assert zoo.load(f"{NAME}.good").num_classes == 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert zoo.load(f"{NAME}.mnist5k_t4").num_classes == 10
        assert f"{NAME}.good" in zoo.list_models(pretrained=True)
        with pytest.raises(zoo.CheckpointError, match=r"broken/config\.json is no model description"):
            zoo.load(f"{NAME}.broken")


# -- what is there already -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["README.md", "config.json", "model.safetensors", "training.yaml", "figures"]
)
def test_files_of_others_are_in_the_way(name, tmp_path):
    model = zoo.create(NAME)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    image = tmp_path / "a.png"
    image.write_bytes(b"png")
    with pytest.raises(FileExistsError, match=r"was not written by zoo\.save, or was changed since"):
        zoo.save(model, tmp_path / "out", settings="seed: 1\n", figures=[image])
    assert [p.name for p in (tmp_path / "out").iterdir()] == [name]
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_an_edited_card_is_not_replaced(tmp_path):
    model = zoo.create(NAME)
    folder = zoo.save(model, tmp_path / "out", settings="seed: 1\n")
    zoo.save(model, folder)  # its own are
    assert not (folder / "training.yaml").exists()
    (folder / "README.md").write_text("better words")
    with pytest.raises(FileExistsError, match=r"README\.md"):
        zoo.save(model, folder)
    assert (folder / "README.md").read_text() == "better words"
    assert not (folder / ".saving").exists()
