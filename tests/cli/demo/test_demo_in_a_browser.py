"""``fulgurite demo`` in Debian's Chromium: a person drops an image and reads the answer."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

import zoo
from cli.demo.classification import build
from cli.demo.explain import explain
from cli.demo.server import launch
from cli.main import main
from datamodules import MNIST5kDataModule
from tests.browser import CHROMIUM, MISSING, Browser

ROOT = Path(__file__).resolve().parents[3]
HAS_GRADIO = importlib.util.find_spec("gradio") is not None
pytestmark = pytest.mark.skipif(not HAS_GRADIO, reason="no gradio: pip install 'fulgurite[demo]'")
NAME = "spiking_cnn_nano"
FILES = "input[type=file]"
LAST_STEP = ".fg-prediction[data-step='4']"
CROSS = "[...document.querySelectorAll('.fg-drop button')].find(b => /clear|remove/i.test(b.outerHTML))"
REMEMBER_STEPS = """
window.steps = [];
new MutationObserver(() => {
  const shown = document.querySelector(".fg-prediction");
  if (shown && steps.at(-1) !== shown.dataset.step) steps.push(shown.dataset.step);
}).observe(document.body, {subtree: true, childList: true, attributes: true});
"""


@pytest.fixture
def strangers(monkeypatch):
    """Addresses beyond this machine that this process wanted to reach."""
    asked = []
    real = socket.getaddrinfo

    def only_here(host, *rest, **more):
        if host not in (None, "127.0.0.1", "localhost", "::1", b"127.0.0.1", b"localhost"):
            asked.append(host)
            raise socket.gaierror("no network in this test")
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", only_here)
    return asked


@pytest.fixture
def network():
    return zoo.load(NAME)


@pytest.fixture
def page(network, strangers, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "dropped"))
    page = build(network, NAME)
    yield launch(page)
    page.close(verbose=False)


@pytest.fixture
def digit(tmp_path):
    _, test = MNIST5kDataModule().load_arrays()
    Image.fromarray(test.images[0, 0]).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
def test_an_image_is_dropped(page, network, digit, strangers, tmp_path):
    told = explain(network, Image.open(digit))
    inverse = explain(network, Image.open(digit), invert=True)
    assert inverse.energy_text != told.energy_text
    with Browser(tmp_path / "profile") as browser:
        browser.open(page)
        browser.wait(f'document.querySelector("{FILES}") !== null')
        assert browser.evaluate("document.title") == f"Fulgurite: {NAME}"
        assert "The network reads it for T = 4 steps." in browser.text()
        browser.evaluate(REMEMBER_STEPS)
        browser.upload(FILES, digit)
        browser.wait(f'document.querySelector("{LAST_STEP}") && document.querySelector(".fg-energy")')
        assert browser.evaluate("steps") == ["1", "2", "3", "4"]
        ((answer, share),) = told.best(4, 1).items()
        said = browser.text()
        for text in (
            f"{told.labels[answer]}\n{share:.0%}\nafter step 4 of 4",
            f"{told.firing_rate:.1%} of the neurons fire",
            f"{told.energy.energy_mj * 1e3:,.3f} µJ",
            f"{told.energy.ann_energy_mj * 1e3:,.3f} µJ",
            told.energy_text,
        ):
            assert text in said, said
        drawn = "[...document.querySelectorAll('img.fg-figure')].map(i => i.naturalWidth)"
        curve, raster = browser.evaluate(drawn)
        assert curve > 300
        assert raster > 800
        assert browser.screenshot(tmp_path / "page.png").stat().st_size > 20_000

        browser.evaluate("document.querySelector('input[type=checkbox]').click()")
        browser.wait(f"document.body.innerText.includes({inverse.energy_text!r})")

        (tmp_path / "notes.png").write_text("no image")
        browser.evaluate(f"{CROSS}.click()")
        browser.wait("document.body.innerText.includes('The prediction appears here')")
        browser.upload(FILES, tmp_path / "notes.png")
        browser.wait("document.body.innerText.includes('This file is no image that can be opened')")

        hosts = {urlsplit(r).hostname for r in browser.requests if r.startswith(("http", "ws"))}
        assert hosts == {"127.0.0.1"}
    assert not strangers


def test_the_command(tmp_path):
    words = [sys.executable, "-m", "cli", "demo", NAME, "--no-browser"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        words,
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    ) as server:
        try:
            line = server.stdout.readline()
            assert line.startswith(f"{NAME}: http://127.0.0.1:"), line
            with urllib.request.urlopen(line.split()[1], timeout=60) as answer:
                assert b"gradio" in answer.read()
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=60) == 0
        finally:
            server.kill()
    assert not list(tmp_path.glob("fulgurite-demo-*"))


def test_a_port_that_is_taken(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            main(["demo", NAME, "--no-browser", "--port", str(port)])
    assert ended.value.code == 2
    assert f"port {port} of 127.0.0.1 is taken" in capsys.readouterr().err
