"""The page that browses the zoo: what it holds, and what it shows in a real browser."""

from __future__ import annotations

import functools
import html
import json
import re
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import zoo
from tests.browser import CHROMIUM, MISSING

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))
import _browse  # noqa: E402 - lies beside the pages

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)

ENTRIES = sorted([*zoo.list_models(), "converted"])  # which is nothing without its weights


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page with the operations of one entry, which take half a minute to count for all."""
    count = zoo.Description.macs.func
    path = tmp_path_factory.mktemp("site") / "browse.html"
    with pytest.MonkeyPatch.context() as patch:
        some = property(lambda told: count(told) if told.name == "spiking_cnn_nano" else None)
        patch.setattr(zoo.Description, "macs", some)
        _browse.write_browser(ROOT / "configs", path)
    return path


@pytest.fixture(scope="module")
def models(page):
    found = re.search(r"^const MODELS = (.*);$", page.read_text(), re.MULTILINE)
    return {model["name"]: model for model in json.loads(found[1].replace("<\\/", "</"))}


def test_every_entry_is_in_it(models):
    assert sorted(models) == ENTRIES
    told = zoo.describe("spiking_cnn_nano")
    mine = models["spiking_cnn_nano"]
    assert (mine["parameters"], mine["macs"], mine["steps"]) == (told.parameters, told.macs, 4)
    assert mine["weights"][0]["measured"]["test/acc1"] == told.weights["mnist5k_t4"].metrics["test/acc1"]


def test_published_and_measured_are_kept_apart(models):
    runs = models["spikingresformer_s"]["runs"]
    (transfer,) = [r for r in runs if r["config"].endswith("cifar10_transfer.yaml")]
    assert transfer["published"] == "97.40 % (as third parties quote it)"
    assert transfer["ours"] == "not measured yet"
    (own,) = [r for r in models["spiking_cnn_nano"]["runs"] if r["config"] == "configs/stbp/mnist5k.yaml"]
    assert own["published"] == "none, our own network"
    assert own["ours"].startswith("98.3 % test accuracy at T = 4, seed 0")
    for model in models.values():
        for run in model["runs"]:
            assert "Ours:" not in run["published"]
            assert "Published:" not in run["ours"] + run["what"]


def test_it_loads_nothing_from_elsewhere(page):
    text = page.read_text()
    assert not re.search(r"(src|@import|url\()\s*=?\s*[\"']?\s*(https?:)?//", text)
    assert not re.search(r"<(link|img|iframe|script\s+src)", text)
    assert "fetch(" not in text


def test_data_cannot_end_the_script(tmp_path, monkeypatch):
    monkeypatch.setattr(_browse, "collect", lambda configs: [{"name": "</script><b>"}])
    _browse.write_browser(tmp_path, tmp_path / "x.html")
    assert "</script><b>" not in (tmp_path / "x.html").read_text()


def browse(address, tmp_path):
    """The document as Chromium leaves it."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([CHROMIUM, *options, address], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return html.unescape(done.stdout)


def rows(document):
    return re.findall(r'<tr class="entry" data-name="(\w+)"', document)


@needs_browser
@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("", lambda d: True),
        ("q=spikingresformer-l", lambda d: d.name == "spikingresformer_l"),
        ("family=sew_resnet&max=22", lambda d: d.family == "sew_resnet" and d.parameters <= 22e6),
        ("paper=2403.14302&pretrained=1", lambda d: d.paper == "2403.14302" and d.weights),
    ],
)
def test_filters_from_the_address(state, expected, page, tmp_path):
    found = rows(browse(f"{page.as_uri()}#{state}", tmp_path))
    wanted = [n for n in ENTRIES if expected(zoo.describe(n))]
    assert sorted(found) == wanted
    assert wanted


@needs_browser
def test_a_row_opens_with_both_numbers(page, tmp_path):
    document = browse(f"{page.as_uri()}#q=spiking_cnn_nano&open=spiking_cnn_nano", tmp_path)
    detail = document.partition('<tr class="detail">')[2].partition("</tbody>")[0]
    assert re.search(r"<th>published \(theirs\)</th><th>measured \(ours\)</th>", detail)
    assert re.search(r"<td>none, our own network</td><td>98\.3 % test accuracy", detail)
    assert "test/acc1 0.988" in detail


TYPIST = """<!DOCTYPE html><body><iframe src="browse.html"></iframe><script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const inside = frame.contentDocument, names = () =>
    [...inside.querySelectorAll("tr.entry")].map(row => row.dataset.name).join(" ");
  const log = text => document.body.append(Object.assign(document.createElement("p"), {textContent: text}));
  const type = (id, value) => {
    const field = inside.getElementById(id);
    if (field.type === "checkbox") field.checked = value; else field.value = value;
    field.dispatchEvent(new frame.contentWindow.Event("input", {bubbles: true}));
  };
  log("all: " + inside.getElementById("count").textContent);
  type("q", "sew");
  log("typed: " + names());
  type("pretrained", true);
  log("none: " + inside.getElementById("count").textContent);
  type("pretrained", false);
  [...inside.querySelectorAll("th button")].find(b => b.textContent === "parameters").click();
  log("sorted: " + names());
  inside.querySelector("tr.entry").click();
  log("opened: " + inside.querySelectorAll("tr.detail").length);
};
</script></body>"""


@needs_browser
def test_typing_sorting_and_clicking(page, tmp_path):
    (page.parent / "typist.html").write_text(TYPIST)
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *args: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(page.parent)))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        document = browse(f"http://127.0.0.1:{server.server_port}/typist.html", tmp_path)
    finally:
        server.shutdown()
        server.server_close()
    said = dict(re.findall(r"<p>(\w+): (.*?)</p>", document))
    total = len(ENTRIES)
    assert said["all"] == f"{total} of {total} networks"
    sew = zoo.list_models("sew_*")
    assert set(sew) <= set(said["typed"].split())
    assert said["none"] == f"0 of {total} networks"
    sizes = [zoo.describe(name).parameters for name in said["sorted"].split()]
    assert sizes == sorted(sizes)
    assert said["opened"] == "1"
