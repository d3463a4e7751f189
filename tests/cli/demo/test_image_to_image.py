"""The page of a network that changes images: the widgets, and what is generated of what was painted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from cli.demo import image_to_image

pytest.importorskip("diffusers")
pytest.importorskip("gradio")


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return zoo.create("up_diff_tiny").eval()


def drawn(left=0, right=16):
    """An image of 32 x 32 pixels with a painted area, as gradio's editor hands it out."""
    layer = np.zeros((32, 32, 4), dtype=np.uint8)
    layer[8:24, left:right] = (255, 0, 0, 255)
    grey = Image.new("RGB", (32, 32), (60, 60, 60))
    return {"background": grey, "layers": [Image.fromarray(layer)], "composite": grey}


def test_what_is_painted_is_generated(tiny):
    steps = []
    made = image_to_image.generate(tiny, drawn(), 2, 2.0, 0, lambda *n: steps.append(n))
    assert made.size == (512, 512)
    assert steps == [(1, 3), (2, 3), (3, 3)]
    again, other, seed = (
        np.asarray(image_to_image.generate(tiny, what, 2, 2.0, number))
        for what, number in ((drawn(), 0), (drawn(16, 32), 0), (drawn(), 1))
    )
    assert np.array_equal(np.asarray(made), again)
    assert not np.array_equal(again, other)
    assert not np.array_equal(again, seed)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (None, "drop an image first"),
        ({"background": None, "layers": []}, "drop an image first"),
        ({**drawn(), "layers": []}, "paint with the brush"),
        (drawn(5, 5), "paint with the brush"),
    ],
)
def test_nothing_to_do_is_told(tiny, what, message):
    with pytest.raises(ValueError, match=message):
        image_to_image.generate(tiny, what, 2, 2.0, 0)


def test_the_page(tiny):
    image_to_image.check(tiny)
    labels = [
        block["props"].get("label")
        for block in image_to_image.build(tiny, "up_diff_tiny").config["components"]
    ]
    assert {"image and brush", "steps", "guidance", "seed", "after"} <= set(labels)
    with pytest.raises(ValueError, match="the page shows networks such as up_diff_tiny, not Linear"):
        image_to_image.check(torch.nn.Linear(1, 1))
