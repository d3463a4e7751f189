"""What a person sees of a text while it is written, and what is written in the end."""

from __future__ import annotations

import io
import json

import torch
from rich.console import Console

from lightning_modules.callbacks.narration import Narration
from lightning_modules.callbacks.writings import line, save_picture, write_page


def screen(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


def told(**changes):
    facts = {"prompt": "a <cat>", "way": "ar", "text": "here", "ended": True, "passes": 9, "image_passes": 6}
    return {**facts, "seconds": 0.5, "image_seconds": 0.4, "parts": [], **changes}


def test_text_comes_as_it_is_written_and_images_have_a_bar():
    console = screen(terminal=True)
    letters = {1: "one ", 2: "two\n", 3: "three", 4: "\ufffd"}
    with Narration("a cat (ar)", lambda ids: "".join(letters[n] for n in ids), console=console) as narration:
        for token in (1, 2, 3, 4):
            narration.text(token)
        for done in (1, 2, 3):
            narration.image(done, 3)
        narration.bar.refresh()
        shown = console.file.getvalue()
    assert "one two\n" in shown  # a finished line stays
    assert "a cat (ar): three [1 image]" in shown
    assert "3/3" in shown
    assert "\ufffd" not in shown


def test_elsewhere_than_on_a_terminal_nothing_is_shown():
    console = screen(terminal=False)
    with Narration("a cat", lambda ids: "text\n" * len(ids), console=console) as narration:
        narration.text(1)
        narration.image(1, 1)
    assert console.file.getvalue() == ""


def test_the_page_shows_parts_in_their_order_and_no_foreign_markup(tmp_path):
    save_picture(torch.zeros(1, 8, 8), tmp_path / "0000_ar_0.png")
    parts = [{"reasoning": "<b>hm</b>"}, {"text": "here"}, {"image": "0000_ar_0.png"}, {"text": "there"}]
    (tmp_path / "0000_ar.json").write_text(json.dumps(told(parts=parts, ended=False)))
    write_page(tmp_path)
    page = (tmp_path / "index.html").read_text()
    places = [
        page.index(s) for s in ("a &lt;cat&gt;", "&lt;b&gt;hm", ">here<", 'src="0000_ar_0.png"', ">there<")
    ]
    assert places == sorted(places)
    assert "the context cut it off" in page
    assert "9 passes, 6 of them for images, 0.50 s" in page


def test_a_line_says_what_came():
    image = ("image", torch.zeros(1, 8, 8))
    assert line(told(parts=[image, image])) == "a <cat> (ar): 'here' and 2 images in 9 passes, 0.50 s"
    cut = told(text="", parts=[image], ended=False)
    assert line(cut) == "a <cat> (ar): 1 image in 9 passes, 0.50 s, cut off by the context"
