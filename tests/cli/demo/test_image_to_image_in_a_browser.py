"""The page with a brush in Debian's Chromium: a person drops an image, paints, and sees what comes of it."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

import zoo
from cli.demo.image_to_image import build
from cli.demo.server import launch
from tests.browser import CHROMIUM, MISSING, Browser

pytest.importorskip("gradio")
pytest.importorskip("diffusers")
FILES = "input[type=file]"
BUTTON = "[...document.querySelectorAll('button')].find(b => b.textContent.trim() === 'generate')"
PRESS = f"{BUTTON}.click()"
RECTANGLE = "const r = document.querySelector('canvas').getBoundingClientRect()"
CANVAS = f"(() => {{{RECTANGLE}; return [r.x, r.y, r.width, r.height]}})()"


def drag(browser, start, end):
    """Press the mouse, move it and let it go."""
    points = [
        (start[0] + (end[0] - start[0]) * i / 8, start[1] + (end[1] - start[1]) * i / 8) for i in range(9)
    ]
    for kind, (x, y) in [
        ("mousePressed", points[0]),
        *[("mouseMoved", p) for p in points],
        ("mouseReleased", points[-1]),
    ]:
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
def test_a_change_is_painted(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "dropped"))
    torch.manual_seed(0)
    page = build(zoo.create("up_diff_tiny").eval(), "up_diff_tiny")
    address = launch(page)
    Image.new("RGB", (64, 64), (60, 90, 60)).save(tmp_path / "city.png")
    try:
        with Browser(tmp_path / "profile") as browser:
            browser.open(address)
            browser.wait(f'document.querySelector("{FILES}") !== null', 40)
            browser.wait(BUTTON, 40)
            browser.evaluate(PRESS)
            browser.wait("document.body.innerText.includes('drop an image first')", 20)
            browser.upload(FILES, tmp_path / "city.png")
            browser.wait("document.querySelector('canvas') !== null", 20)
            browser.evaluate("new Promise(done => setTimeout(done, 2000))")
            browser.evaluate(PRESS)
            browser.wait("document.body.innerText.includes('paint with the brush')", 20)
            brush = 'document.querySelector(\'button[aria-label*="rush" i], button[title*="rush" i]\')'
            browser.evaluate(f"{brush}?.click()")
            x, y, width, height = browser.evaluate(CANVAS)
            drag(browser, (x + width * 0.4, y + height * 0.5), (x + width * 0.6, y + height * 0.5))
            browser.evaluate("new Promise(done => setTimeout(done, 1000))")
            browser.evaluate(PRESS)
            made = "[...document.querySelectorAll('img')].some(i => i.naturalWidth === 512)"
            try:
                browser.wait(made, 40)
            finally:
                browser.screenshot(tmp_path / "page.png")
            assert not browser.complaints
    finally:
        page.close(verbose=False)
