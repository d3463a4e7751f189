"""Repositories that mean harm, and the token that must stay where it is."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch

import zoo
from tests.zoo.hub.server import WRITER

NAME = "spiking_cnn_nano"
CONFIG = json.dumps({"architecture": NAME, "model_args": {}, "num_classes": 10}).encode()


def index(*names):
    return json.dumps({"metadata": {}, "weight_map": {f"layer{i}": n for i, n in enumerate(names)}}).encode()


BAD_NAMES = [
    "../../secret.safetensors",
    "/etc/secret.safetensors",
    "..\\secret.safetensors",
    "sub/part.safetensors",
    ".hidden.safetensors",
    "model.bin",
    "",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_of_shards_that_lead_elsewhere(name, hub, client, tmp_path):
    hub.put("bad/one", {"config.json": CONFIG, "model.safetensors.index.json": index("a.safetensors", name)})
    with pytest.raises(zoo.CheckpointError, match=r"which is no plain name .* it is refused"):
        zoo.load("hf-hub:bad/one")
    assert not any("secret" in path or path.endswith("a.safetensors") for _, path, _ in hub.requests)
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "model.safetensors.index.json").write_bytes(index(name))
    (tmp_path / "secret.safetensors").write_bytes(b"x")
    with pytest.raises(zoo.CheckpointError, match="it is refused"):
        zoo.load(f"local-dir:{folder}")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"weight_map": 3}', b'{"weight_map": {}}'])
def test_an_index_that_is_none(content, hub, client):
    hub.put("bad/one", {"config.json": CONFIG, "model.safetensors.index.json": content})
    with pytest.raises(zoo.CheckpointError, match=r"is no index of weights|missing"):
        zoo.load("hf-hub:bad/one")


@pytest.mark.parametrize("claimed", [2**63 - 1, 2**40, 200_000_000, 1000])
def test_a_header_that_claims_too_much(claimed, hub, client):
    content = struct.pack("<Q", claimed) + b"{" + b" " * 500
    hub.put("bad/one", {"config.json": CONFIG, "model.safetensors": content})
    with pytest.raises(zoo.CheckpointError, match=f"its header claims {claimed:,} bytes"):
        zoo.load("hf-hub:bad/one")


def test_tensors_that_claim_too_much(hub, client):
    header = json.dumps(
        {"stem.0.weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ).encode()
    hub.put("bad/one", {"config.json": CONFIG, "model.safetensors": struct.pack("<Q", len(header)) + header})
    with pytest.raises(zoo.CheckpointError, match="no whole safetensors file"):
        zoo.load("hf-hub:bad/one")


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_pickles_are_not_opened(hub, client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trap = pickle.dumps({"state_dict": Payload()})
    for name in ("pytorch_model.bin", "model.safetensors"):
        hub.put(f"bad/{name[:5]}", {"config.json": CONFIG, name: trap})
        with pytest.raises((zoo.CheckpointError, FileNotFoundError)):
            zoo.load(f"hf-hub:bad/{name[:5]}")
    torch.save({"state_dict": Payload()}, tmp_path / "a.pth")
    with pytest.raises(zoo.CheckpointError, match="contains pickled code"):
        zoo.load(NAME, weights=tmp_path / "a.pth")
    assert not Path("executed").exists()


def test_a_description_cannot_send_us_elsewhere(hub, client, python, tmp_path):
    """timm passes the description's own 'file' on; the weights must still be the repository's."""
    zoo.push(zoo.load(NAME), "bad/one")
    files = hub.files("bad/one")
    other = zoo.save(zoo.load(NAME, pretrained=False), tmp_path / "other")
    config = json.loads(files["config.json"])
    config["pretrained_cfg"] |= {"file": str(other), "url": "http://127.0.0.1:9/x", "source": "file"}
    hub.put("bad/one", {**files, "config.json": json.dumps(config).encode()})
    code = (
        "import timm, zoo, torch\n"
        "a = timm.create_model('hf-hub:bad/one', pretrained=True)\n"
        "assert torch.equal(a.classifier.bias, zoo.load('spiking_cnn_nano').classifier.bias)"
    )
    ran = python("-c", code)
    assert ran.returncode == 0, ran.stderr


# -- the token -------------------------------------------------------------------------------------


def everything_published(hub):
    for repository in hub.repositories.values():
        for files in repository.commits.values():
            yield from files.items()


@pytest.mark.parametrize("failing", [False, True])
def test_the_token_is_nowhere(failing, hub, python, tmp_path):
    folder = zoo.save(zoo.load(NAME), tmp_path / "out")
    if failing:  # a server, or a proxy, that repeats what it was sent
        echo = {"X-Error-Message": f"bad header: Bearer {WRITER}"}
        body = json.dumps({"error": f"token {WRITER} may not"}).encode()
        hub.fail("POST", "/preupload/", status=403, headers=echo, body=body, times=100)
    code = f"import zoo; print(zoo.push({str(folder)!r}, 'me/nano'))"
    ran = python("-c", code, HF_TOKEN=WRITER, HF_DEBUG="1", HF_HUB_VERBOSITY="debug")
    assert (ran.returncode != 0) == failing, ran.stderr
    assert WRITER not in ran.stdout + ran.stderr
    assert ("HubError" in ran.stderr) == failing
    sent = [path for _, path, headers in hub.requests if WRITER in headers.get("authorization", "")]
    assert any("/preupload/" in path for path in sent)
    assert not any(path.startswith("/lfs/") for path in sent)
    assert not [name for name, content in everything_published(hub) if WRITER.encode() in content]
    kept = [p for p in tmp_path.rglob("*") if p.is_file() and WRITER.encode() in p.read_bytes()]
    assert not kept


def test_files_with_a_token_are_not_published(hub, client, tmp_path):
    folder = zoo.save(zoo.load(NAME), tmp_path / "out", command="HF_TOKEN=hf_" + "q" * 30 + " fulgurite fit")
    with pytest.raises(zoo.HubError, match=r"config\.json holds what looks like an access token"):
        zoo.push(folder, "me/nano")
    folder = zoo.save(zoo.load(NAME), tmp_path / "out")
    (folder / "training.yaml").write_text(f"logger: {WRITER}\n")
    with pytest.raises(zoo.HubError, match=r"training\.yaml holds") as caught:
        zoo.push(folder, "me/nano")
    assert WRITER not in str(caught.value)
    assert not hub.repositories


def test_a_broken_token_is_not_quoted(hub, client, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", WRITER + "\x07tail")
    for call in (lambda: zoo.load("hf-hub:me/nano"), lambda: zoo.push(zoo.load(NAME), "me/nano")):
        with pytest.raises(zoo.HubError, match="has characters that no token has") as caught:
            call()
        assert WRITER not in str(caught.value)
