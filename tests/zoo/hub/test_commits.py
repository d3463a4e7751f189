"""Files of one commit only, whoever publishes meanwhile, and a cache that heals."""

from __future__ import annotations

import json

import pytest
import torch

import zoo
from tests.zoo.hub.server import Handler

NAME = "spiking_cnn_nano"


@pytest.fixture
def two_versions(hub, client, tmp_path):
    """Two versions whose descriptions have the same size; the first is published."""
    folder = zoo.save(zoo.load(NAME), tmp_path / "a")
    zoo.push(folder, "me/nano")
    first = dict(hub.files("me/nano"))
    other = zoo.save(zoo.load(NAME, pretrained=False), tmp_path / "b")
    config = json.loads(first["config.json"])
    config["fulgurite"]["sha256"] = json.loads((other / "config.json").read_text())["fulgurite"]["sha256"]
    second = {
        **first,
        "model.safetensors": (other / "model.safetensors").read_bytes(),
        "config.json": (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode(),
    }
    assert len(first["config.json"]) == len(second["config.json"])
    return first, second


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_push_in_the_middle_of_a_load(method, name, hub, two_versions, monkeypatch):
    old = hub.repositories["me/nano"].branches["main"]
    usual, pushed = Handler.pick_fault, []

    def pick(self):
        if self.command == method and self.path.endswith(name) and not pushed:
            pushed.append(hub.put("me/nano", two_versions[1]))
        return usual(self)

    monkeypatch.setattr(Handler, "pick_fault", pick)
    expected = zoo.load(NAME).classifier.bias
    mixed = zoo.load("hf-hub:me/nano").classifier.bias
    assert pushed
    pinned = zoo.load(f"hf-hub:me/nano@{old}").classifier.bias
    assert torch.equal(pinned, expected)
    fresh = zoo.load("hf-hub:me/nano").classifier.bias
    assert not torch.equal(fresh, expected)
    before_the_question = method == "HEAD" and name == "config.json"
    assert torch.equal(mixed, fresh if before_the_question else expected)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("damage", [b"", b"{}", "cut", "flip"])
def test_a_damaged_cache_heals_at_once(name, damage, hub, two_versions, client):
    expected = zoo.load("hf-hub:me/nano").classifier.bias
    (cached,) = client.rglob(f"snapshots/*/{name}")
    whole = cached.read_bytes()
    if damage == "cut":
        cached.resolve().write_bytes(whole[: len(whole) // 2])
    elif damage == "flip":
        cached.resolve().write_bytes(bytes([*whole[:-30], whole[-30] ^ 1, *whole[-29:]]))
    else:
        cached.resolve().write_bytes(damage)
    assert torch.equal(zoo.load("hf-hub:me/nano").classifier.bias, expected)
    (cached,) = client.rglob(f"snapshots/*/{name}")
    assert cached.read_bytes() == whole


def test_a_branch_is_known_without_a_network(hub, two_versions, monkeypatch):
    first = hub.repositories["me/nano"].branches["main"]
    hub.put("me/nano", two_versions[1])
    hub.put("me/nano", two_versions[0], branch="side")
    zoo.load("hf-hub:me/nano")
    zoo.load("hf-hub:me/nano@side")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.requests.clear()
    latest = zoo.load("hf-hub:me/nano").classifier.bias
    side = zoo.load("hf-hub:me/nano@side").classifier.bias
    assert torch.equal(side, zoo.load(NAME).classifier.bias)
    assert not torch.equal(latest, side)
    with pytest.raises(zoo.HubFileNotFoundError, match="offline mode is on"):
        zoo.load(f"hf-hub:me/nano@{first}")
    assert not hub.requests
