"""What the Hub, the network and other people can do wrong, and the words that the user reads."""

from __future__ import annotations

import json
import types

import pytest
import torch

import zoo
from tests.zoo.hub.server import READER, WRITER

NAME = "spiking_cnn_nano"
WEIGHTS = r"resolve/.*/model\.safetensors"


@pytest.fixture
def naps(monkeypatch):
    """Replaces the client's waiting between retries; answers how often it wanted to."""
    import time

    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    taken = []
    clock = types.SimpleNamespace(**{n: getattr(time, n) for n in dir(time) if not n.startswith("_")})
    clock.sleep = taken.append
    monkeypatch.setattr(_http, "time", clock)
    monkeypatch.setattr(file_download, "time", clock)
    return taken


@pytest.fixture
def published(hub, client):
    return zoo.push(zoo.load(NAME), "me/nano")


def snapshot(hub, repo_id="me/nano"):
    return dict(hub.files(repo_id)) if repo_id in hub.repositories else None


# -- fetching --------------------------------------------------------------------------------------


def test_a_download_goes_on_where_it_was_cut(hub, published, naps, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)
    hub.fail("GET", WEIGHTS, cut_after=100_000)
    model = zoo.load("hf-hub:me/nano")
    assert torch.equal(model.classifier.bias, zoo.load(NAME).classifier.bias)
    asked = [h.get("range") for m, p, h in hub.requests if m == "GET" and p.endswith("model.safetensors")]
    assert asked[0] is None
    assert asked[1].startswith("bytes=")
    assert asked[1] != "bytes=0-"
    assert len(naps) == 1


def test_a_download_that_never_ends_well(hub, published, client, naps):
    hub.fail("GET", WEIGHTS, cut_after=0, times=100)
    with pytest.raises(
        zoo.HubFileNotFoundError, match=r"connection to 127.*broke.*nothing half-fetched was kept"
    ):
        zoo.load("hf-hub:me/nano")
    assert not list(client.rglob("*.incomplete"))
    assert not list(client.rglob("model.safetensors"))
    hub.faults.clear()
    assert zoo.load("hf-hub:me/nano").num_classes == 10


def test_no_connection_is_told_at_once(hub, client, naps):
    hub.close()
    with pytest.raises(FileNotFoundError, match=r"no connection to 127.*'local-dir:PATH'"):
        zoo.load("hf-hub:me/nano")
    assert not naps  # the client library alone would wait for 23 seconds


def test_what_is_cached_needs_no_connection(hub, published, naps):
    zoo.load("hf-hub:me/nano")
    hub.close()
    assert zoo.load("hf-hub:me/nano").num_classes == 10
    assert not naps


def test_offline_mode(hub, published, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    with pytest.raises(FileNotFoundError, match=r"HF_HUB_OFFLINE.*'local-dir:PATH'"):
        zoo.load("hf-hub:me/nano")
    assert not hub.requests


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 429, "headers": {"Retry-After": "17"}}, "too many requests; try again in 17 seconds"),
        ({"status": 429, "headers": {"RateLimit": '"api";r=0;t=55'}}, "try again in 55 seconds"),
        ({"status": 503}, "answers 503.*the server has trouble; try again later"),
        ({"status": 403, "headers": {"X-Error-Code": "GatedRepo"}}, "access to me/nano must be granted"),
        ({"status": 403}, "the token does not permit reading me/nano.*settings/tokens"),
        (
            {"status": 401, "headers": {"X-Error-Message": "Invalid credentials in Authorization header"}},
            "the token is not accepted .expired, revoked or mistyped.*hf auth login",
        ),
        ({"status": 200, "body": b""}, "answers like no Hub"),
    ],
)
def test_answers_in_words(fault, message, hub, published, naps):
    hub.fail("HEAD", "config.json", times=100, **fault)
    with pytest.raises(zoo.HubError, match=message):
        zoo.load("hf-hub:me/nano")


def test_names_that_lead_nowhere(hub, published, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"there is no repository me/nanno.*check the name"):
        zoo.load("hf-hub:me/nanno")
    with pytest.raises(FileNotFoundError, match=r"me/nano has no revision 'v9'"):
        zoo.load("hf-hub:me/nano@v9")
    with pytest.raises(ValueError, match=r"expected OWNER/NAME\[@REVISION\]"):
        zoo.load("hf-hub:not a name")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "X" * 34)
    with pytest.raises(zoo.HubError, match="the token is not accepted"):
        zoo.load("hf-hub:me/nano@fresh")


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        (
            {"model.safetensors": b"x"},
            FileNotFoundError,
            r"has no config\.json, which would say what network",
        ),
        ({"config.json": b"{"}, zoo.CheckpointError, "is no model description"),
        (
            {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"x"},
            zoo.CheckpointError,
            "looks like one of transformers .model_type: 'bert'",
        ),
        (
            {"config.json": b'{"hidden": 3}', "model.safetensors": b"x"},
            zoo.CheckpointError,
            "names no 'architecture' .it has: hidden",
        ),
        (
            {"config.json": b'{"architecture": "spiking_cnn_nano"}', "pytorch_model.bin": b"x"},
            FileNotFoundError,
            r"has no model\.safetensors; this zoo reads safetensors only",
        ),
    ],
)
def test_repositories_that_are_not_ours(files, error, message, hub, client):
    if files.get("config.json") == b"{":
        files = {**files, "model.safetensors": b"x"}
    hub.put("me/other", files)
    with pytest.raises(error, match=message):
        zoo.load("hf-hub:me/other")


def test_a_damaged_file(hub, published, client):
    good = hub.files("me/nano")
    bad = bytearray(good["model.safetensors"])
    bad[-3] ^= 0xFF
    hub.put("me/nano", {**good, "model.safetensors": bytes(bad)})
    for _ in range(2):  # the damaged file does not stay in the cache
        with pytest.raises(zoo.CheckpointError, match=r"SHA-256.*the next call fetches it again"):
            zoo.load("hf-hub:me/nano")
        assert not list(client.rglob("model.safetensors"))
    hub.put("me/nano", good)
    assert zoo.load("hf-hub:me/nano").num_classes == 10


# -- publishing ------------------------------------------------------------------------------------


def test_an_upload_that_is_cut_once(hub, client, naps):
    hub.fail("PUT", "/lfs/", cut_after=50_000)
    zoo.push(zoo.load(NAME), "me/nano")
    assert hub.count("PUT", "/lfs/") == 2
    assert torch.equal(zoo.load("hf-hub:me/nano").classifier.bias, zoo.load(NAME).classifier.bias)


@pytest.mark.parametrize(("method", "path"), [("PUT", "/lfs/"), ("POST", "/commit/")])
def test_an_upload_that_is_always_cut(method, path, hub, published, naps):
    before = snapshot(hub)
    hub.fail(method, path, cut_after=10, times=100)
    with pytest.raises(
        zoo.HubError, match=r"me/nano was not published: the connection.*all of it or nothing"
    ):
        zoo.push(zoo.load(NAME, pretrained=False), "me/nano")
    assert snapshot(hub) == before
    hub.faults.clear()
    zoo.push(zoo.load(NAME, pretrained=False), "me/nano")
    assert snapshot(hub) != before


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (READER, "the token does not permit writing to me; make one that does"),
        ("hf_" + "X" * 34, "the token is not accepted"),
    ],
)
def test_tokens_that_do_not_suffice(token, message, hub, client, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(zoo.HubError, match=message) as caught:
        zoo.push(zoo.load(NAME), "me/nano")
    assert token not in str(caught.value)
    assert "me/nano" not in hub.repositories


def test_no_token(hub, client, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(zoo.HubError, match="publishing needs a token; log in with `hf auth login`"):
        zoo.push(zoo.load(NAME), "me/nano")
    with pytest.raises(zoo.HubError, match="there is no token in HF_TOKEN"):
        zoo.push(zoo.load(NAME), "me/nano", token_from="env")
    with pytest.raises(zoo.HubError, match="no token is stored"):
        zoo.push(zoo.load(NAME), "me/nano", token_from="login")
    assert not hub.requests
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text(WRITER + "\n")
    zoo.push(zoo.load(NAME), "me/nano", token_from="login")


def test_too_many_requests_while_publishing(hub, published, naps):
    before = snapshot(hub)
    hub.fail("POST", "/commit/", status=429, headers={"Retry-After": "30"}, times=100)
    with pytest.raises(zoo.HubError, match="too many requests; try again in 30 seconds"):
        zoo.push(zoo.load(NAME, pretrained=False), "me/nano")
    assert snapshot(hub) == before


def test_a_server_without_uploads(hub, client):
    hub.fail("POST", "/api/repos/create", status=405)
    with pytest.raises(zoo.HubError, match=r"answers 405.*: it takes no uploads; check HF_ENDPOINT"):
        zoo.push(zoo.load(NAME), "me/nano")


def test_a_folder_that_is_not_whole(hub, client, tmp_path):
    folder = zoo.save(zoo.load(NAME), tmp_path / "out")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1] + b"\1")
    with pytest.raises(zoo.CheckpointError, match=r"is not the file that config\.json describes"):
        zoo.push(folder, "me/nano")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        zoo.push(folder, "me/nano")
    with pytest.raises(zoo.CheckpointError, match=r"has no config\.json"):
        zoo.push(tmp_path, "me/nano")
    assert not hub.requests


# -- licences --------------------------------------------------------------------------------------


def test_weights_of_others_need_a_licence(hub, client, tmp_path):
    torch.save({"model": zoo.load(NAME).state_dict()}, tmp_path / "theirs.pth")
    model = zoo.load(NAME, weights=tmp_path / "theirs.pth")
    with pytest.raises(zoo.LicenceError, match=r"come from theirs\.pth, whose licence is unknown.*--licence"):
        zoo.push(model, "me/nano")
    with pytest.raises(zoo.LicenceError):
        zoo.push(model, "me/nano", licence="unknown")
    assert not hub.repositories
    zoo.push(model, "me/nano", licence="mit")
    card = hub.files("me/nano")["README.md"].decode()
    assert "theirs.pth, licence: unknown" in card
    assert "license: mit" in card


def test_weights_of_timm_carry_their_name_and_licence(hub, client, tmp_path):
    import timm

    cfg = timm.get_pretrained_cfg("test_resnet.r160_in1k")
    source = timm.create_model("test_resnet", pretrained=False)
    torch.save(source.state_dict(), tmp_path / "file.pth")
    overlay = {"file": str(tmp_path / "file.pth"), "hf_hub_id": None}
    model = zoo.load("timm/test_resnet.r160_in1k", pretrained_cfg_overlay=overlay)
    zoo.push(model, "me/ann", label_names=[str(k) for k in range(1000)])
    config = json.loads(hub.files("me/ann")["config.json"])
    assert config["fulgurite"]["origin"]["name"] == "timm/test_resnet.r160_in1k"
    assert config["fulgurite"]["licence"] == cfg.license == "apache-2.0"
    assert str(tmp_path) not in hub.files("me/ann")["config.json"].decode()
    again = zoo.load("hf-hub:me/ann")
    x = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(again(x), source.eval()(x))
    unknown = timm.create_model("test_resnet", pretrained_cfg_overlay={"license": "unknown"})
    with pytest.raises(zoo.LicenceError, match=r"come from timm/test_resnet\.r160_in1k, whose licence"):
        zoo.push(unknown, "me/ann2")
    zoo.push(unknown, "me/ann2", origin="own")
    assert json.loads(hub.files("me/ann2")["config.json"])["fulgurite"]["origin"] is None
