"""The page of a language model in Debian's Chromium: a person writes a prompt and sees both answers."""

from __future__ import annotations

import pytest

from cli.demo.language import build
from cli.demo.server import launch
from tests.browser import CHROMIUM, MISSING, Browser
from tests.cli.demo.test_language import NOISE, tiny

pytest.importorskip("gradio")
BOX = "document.querySelector('textarea, input[type=text]')"
BUTTON = "[...document.querySelectorAll('button')].find(b => b.textContent.trim() === 'write')"
SET = "Object.getOwnPropertyDescriptor(Object.getPrototypeOf({0}), 'value').set.call({0}, '{1}')"
INPUT = "{0}.dispatchEvent(new Event('input', {{bubbles: true}}))"


def write(browser, text):
    """Type a prompt and press the button."""
    browser.evaluate(SET.format(BOX, text))
    browser.evaluate(INPUT.format(BOX))
    browser.evaluate("new Promise(done => setTimeout(done, 300))")
    browser.evaluate(f"{BUTTON}.click()")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
def test_a_prompt_is_answered_in_both_ways(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "dropped"))
    page = build(tiny(noise=NOISE), "emu3_5_tiny")
    address = launch(page)
    try:
        with Browser(tmp_path / "profile") as browser:
            browser.open(address)
            browser.wait(BUTTON, 60)
            browser.wait(BOX, 60)
            write(browser, "a cat")
            browser.wait("document.body.innerText.includes('has no word')", 60)
            write(browser, "digit 3")
            browser.wait("document.querySelector('.fg-writing[data-done=\"1\"]') !== null", 60)
            assert browser.evaluate("[...document.querySelectorAll('.fg-way')].map(w => w.dataset.way)") == [
                "ar",
                "dida",
            ]
            for way in ("ar", "dida"):
                drawn = f"document.querySelectorAll('[data-way={way}] img.fg-drawn')"
                assert browser.evaluate(f"[...{drawn}].every(i => i.naturalWidth >= 128)")
            assert "What it took" in browser.text()
            assert all(one.startswith((address, "data:", "blob:")) for one in browser.requests)
            browser.screenshot(tmp_path / "page.png")
            assert not browser.complaints
    finally:
        page.close(verbose=False)
