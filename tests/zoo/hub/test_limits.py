"""Servers that fall silent, trickle, or send without end: every request is given up in time."""

from __future__ import annotations

import gzip
import time

import pytest

import zoo
from tests.zoo.hub.server import Handler
from zoo.hub import limits

NAME = "spiking_cnn_nano"
SOON = 8.0  # seconds; with the limits below every call must have ended long before


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Limits in tenths of a second, so that the tests need not wait; those of downloads, too."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.6)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.6)
    for name, value in (("SILENCE", 0.6), ("ANSWER", 1.0), ("WINDOW", 1.0), ("SMALL", 2**20)):
        monkeypatch.setattr(limits, name, value)


@pytest.fixture
def handler(hub, monkeypatch):
    """Replaces one method of the server's answers, in this test only."""

    def replace(name, function):
        monkeypatch.setattr(Handler, name, function)

    return replace


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return zoo.save(zoo.load(NAME), tmp_path_factory.mktemp("saved") / "out")


def silent(_):
    time.sleep(SOON + 2)


def trickling(handler):
    """A status line one byte in a while, without end."""
    try:
        for _ in range(int((SOON + 2) / 0.2)):
            handler.wfile.write(b"H")
            handler.wfile.flush()
            time.sleep(0.2)
    except OSError:
        pass  # the client went away, as it should


STEPS = ("create", "preupload", "lfs", "store", "commit", "info")


@pytest.mark.parametrize(
    ("way", "step"), [*((silent, step) for step in STEPS), (trickling, "lfs"), (trickling, "commit")]
)
def test_publishing_ends(way, step, hub, client, handler, folder):
    handler(step, lambda self, *_: way(self))
    begin = time.monotonic()
    with pytest.raises(zoo.HubError, match=r"me/nano was not published: .*(in time|within|was given up)"):
        zoo.push(folder, "me/nano")
    assert time.monotonic() - begin < SOON
    assert step == "create" or "config.json" not in hub.files("me/nano")


@pytest.mark.parametrize(
    ("way", "method", "name"),
    [
        (silent, "HEAD", "config.json"),
        (silent, "HEAD", "model.safetensors"),
        (silent, "GET", "model.safetensors"),
        (trickling, "HEAD", "config.json"),
        (trickling, "GET", "model.safetensors"),
    ],
)
def test_fetching_ends(way, method, name, hub, client, handler, folder):
    zoo.push(folder, "me/nano")
    usual = Handler.resolve

    def resolve(self, repo_id, revision, path):
        if path == name and self.command == method:
            return way(self)
        return usual(self, repo_id, revision, path)

    handler("resolve", resolve)
    begin = time.monotonic()
    with pytest.raises(zoo.HubFileNotFoundError, match=r"could not be fetched"):
        zoo.load("hf-hub:me/nano")
    assert time.monotonic() - begin < 2 * SOON  # the client library asks six times where it sets the limit
    assert not list(client.rglob("model.safetensors"))


def test_a_body_that_trickles(hub, client, handler, folder):
    zoo.push(folder, "me/nano")
    usual = Handler.answer

    def answer(self, status, body=b"", headers=None):
        if self.command != "GET" or not self.path.endswith(".safetensors"):
            return usual(self, status, body, headers)
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        try:
            for begin in range(0, len(body), 20):  # 100 bytes a second
                self.wfile.write(body[begin : begin + 20])
                self.wfile.flush()
                time.sleep(0.2)
        except OSError:
            pass
        return None

    handler("answer", answer)
    begin = time.monotonic()
    with pytest.raises(zoo.HubFileNotFoundError, match=r"moved \d+ bytes in 1 seconds: it was given up"):
        zoo.load("hf-hub:me/nano")
    assert time.monotonic() - begin < SOON
    handler("answer", usual)
    assert zoo.load("hf-hub:me/nano").num_classes == 10


def test_an_answer_without_end(hub, client, folder):
    zoo.push(folder, "me/nano")
    hub.put("me/nano", {**hub.files("me/nano"), "config.json": b" " * 3 * 2**20})
    with pytest.raises(zoo.HubFileNotFoundError, match=r"more than 1,048,576 bytes where a short answer"):
        zoo.load("hf-hub:me/nano")


def test_a_packed_answer_that_was_not_asked_for(hub, client, folder):
    zoo.push(folder, "me/nano")
    packed = gzip.compress(b" " * 2**22)
    hub.fail("GET", "config.json", status=200, body=packed, headers={"Content-Encoding": "gzip"}, times=9)
    with pytest.raises(zoo.HubFileNotFoundError, match=r"packed answer \(gzip\) that was not asked for"):
        zoo.load("hf-hub:me/nano")


ANSWERS = [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 4000]


@pytest.mark.parametrize("path", ["/preupload/", "/batch", "/commit/", "/api/models/me/nano$"])
def test_answers_that_make_no_sense(path, hub, client, folder):
    for body in ANSWERS:
        hub.faults.clear()
        hub.objects.clear()
        hub.fail("GET" if path.endswith("$") else "POST", path, status=200, body=body, times=100)
        with pytest.raises(zoo.HubError, match=r"^me/nano was not published: [^\n]*$"):
            zoo.push(folder, "me/nano")
        hub.put("me/nano", {"README.md": b"before"})


@pytest.mark.parametrize("commit", ["", "main", "../../x", "g" * 40, "A" * 40])
def test_a_commit_that_is_none(commit, hub, client):
    hub.put("me/nano", {"config.json": b"{ }"})
    headers = {"X-Repo-Commit": commit, "ETag": '"abc"', "Content-Length": "3"}
    hub.fail("HEAD", "config.json", status=200, headers=headers, body=b"{ }", times=9)
    with pytest.raises(zoo.HubFileNotFoundError, match=r"names no commit|sends X-Repo-Commit"):
        zoo.load("hf-hub:me/nano")


@pytest.mark.parametrize("revision", ["../../x", "a..b", "/etc", "a b", "", "x" * 300, "a//b", "@{u}"])
def test_a_revision_that_is_none(revision, client):
    with pytest.raises(ValueError, match="is no revision: expected OWNER/NAME@BRANCH"):
        zoo.load(f"hf-hub:me/nano@{revision}")


@pytest.mark.parametrize("address", ["ftp://x", "localhost:1", "http://", "http://a b", "https://me:pw@host"])
def test_an_address_that_is_none(address, client, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(zoo.HubError, match="HF_ENDPOINT is no address of a server"):
        zoo.load("hf-hub:me/nano")


@pytest.mark.parametrize("tag", ["../../../escaped", "/tmp/escaped", "..", "a\\..\\b", ""])
@pytest.mark.parametrize("header", ["ETag", "X-Linked-Etag"])
def test_an_answer_names_no_file_outside_of_the_cache(header, tag, hub, client, handler, folder, tmp_path):
    zoo.push(folder, "me/nano")
    usual = Handler.answer

    def answer(self, status, body=b"", headers=None):
        renamed = {header: f'"{tag}"'} if "X-Repo-Commit" in (headers or {}) else {}
        usual(self, status, body, {**(headers or {}), **renamed})

    handler("answer", answer)
    before = {path for path in tmp_path.rglob("*") if "hub" not in path.parts}
    with pytest.raises(zoo.HubFileNotFoundError, match="could not be fetched"):
        zoo.load("hf-hub:me/nano")
    assert {path for path in tmp_path.rglob("*") if "hub" not in path.parts} == before
    assert not list(tmp_path.parent.glob("escaped*"))
