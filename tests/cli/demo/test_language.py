"""The page of a language model: a prompt, and answers that build up side by side."""

from __future__ import annotations

import re

import pytest
import torch

import zoo
from cli.demo import language
from zoo.models.emu3_5.pipeline import Pipeline

pytest.importorskip("transformers")
pytest.importorskip("gradio")
SMALL = {"layers": 1, "width": 16, "ffn": 24, "heads": 2, "kv_heads": 1, "head_dim": 8, "context": 60}
NOISE = {"path": "mixture", "c": 3.0, "alpha": 0.9}


def tiny(**arguments):
    """Random weights that like to begin images, and to end."""
    torch.manual_seed(0)
    model = zoo.create("emu3_5_tiny", **{**SMALL, "grid": (2, 3), **arguments}).eval()
    v, head = model.vocabulary, model.decoder.lm_head
    head.register_forward_hook(lambda _, __, out: out + liking(v, out))
    return model


def liking(v, logits):
    added = torch.zeros(logits.shape[-1])
    added[[v.image_start, v.eos]] = torch.tensor([4.0, 2.0])
    return added


def shown(model, prompt="digit 3", seed=0, passes=2):
    return list(language.frames(Pipeline(model), prompt, seed, passes))


def ways(page):
    return re.findall(r'data-way="(\w+)"', page)


def test_an_answer_builds_up():
    *_, last = pages = shown(tiny())
    assert all('data-done="0"' in page for page in pages[:-2])
    assert 'data-done="1"' in last
    assert ways(last) == ["ar"]
    images = last.count("data:image/png;base64,")
    assert images > 0
    assert f"token by token: {images} image{'s' * (images > 1)} in {8 * images} passes" in last


def test_an_adapted_network_writes_in_both_ways_side_by_side():
    *_, last = shown(tiny(noise=NOISE), passes=3)
    assert ways(last) == ["ar", "dida"]
    count = int(re.search(r"images at once \(DiDA\): (\d+) image", last)[1])
    assert f"in {3 * count} passes" in last
    assert last.count("passes, ") == last.count("time, ") == 4  # label and its title, of both


def test_the_seed_decides():
    first, again, other = (re.findall(r"base64,(\w+)", shown(tiny(), seed=n)[-1]) for n in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (" ", "Write a prompt first"),
        ("<b>cat</b>", "no word &#x27;&lt;b&gt;cat&lt;/b&gt;&#x27;"),
        ("digit " * 60, "leaves no room in a context of 60"),
    ],
)
def test_what_cannot_be_continued_is_told(prompt, message):
    assert message in shown(tiny(), prompt)[-1]


def test_writing_ends_when_nobody_looks(monkeypatch):
    monkeypatch.setattr(language, "PERIOD", 0.0)
    before = language.threading.active_count()
    frames = language.frames(Pipeline(tiny(context=4000)), "digit 3", 0)
    next(frames)
    assert language.threading.active_count() > before
    frames.close()
    for thread in language.threading.enumerate():
        if thread.name == "writing":
            thread.join(20)
            assert not thread.is_alive()


def test_the_page():
    labels = [
        block["props"].get("label")
        for block in language.build(tiny(noise=NOISE), "emu3_5_tiny").config["components"]
    ]
    assert {"prompt", "seed", "passes of an image at once"} <= set(labels)
    with pytest.raises(ValueError, match="does not know the size of its images"):
        language.check(tiny(grid=None))
    with pytest.raises(ValueError, match="knows ids only"):
        language.check(tiny(vocabulary="emu3_5"))
    with pytest.raises(ValueError, match="models such as emu3_5_tiny, not Linear"):
        language.check(torch.nn.Linear(1, 1))
