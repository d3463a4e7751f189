"""The page of a network that changes images: an image, a brush for what is planned, and what comes of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS, MOST_STEPS = 20, 100  # of the sampling chain
GUIDANCE, MOST_GUIDANCE = 2.0, 10.0


def check(model: Any) -> None:
    """Make sure that the page can work with the network.

    Raises:
        ValueError: it is of no kind that the page knows, or has no captions yet.
    """
    from zoo.models.up_diff import UpDiff

    if not isinstance(model, UpDiff):
        raise ValueError(f"the page shows networks such as up_diff_tiny, not {type(model).__name__}")
    try:
        model.require_ready()
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def build(model: Any, name: str) -> Any:
    """The page of one network.

    Raises:
        ImportError: gradio is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio

    from cli.demo import page as parts

    side = model.image_size
    with gradio.Blocks(title=f"Fulgurite: {name}", analytics_enabled=False) as page:
        gradio.HTML(
            parts.heading(
                name, f"Drop an image and paint what is planned to change. It is read at {side} x {side}."
            )
        )
        with gradio.Row(equal_height=False):
            with gradio.Column(scale=1):
                editor = gradio.ImageEditor(
                    type="pil",
                    label="image and brush",
                    brush=gradio.Brush(colors=["#ff0000"], color_mode="fixed"),
                    layers=False,
                )
                steps = gradio.Slider(1, MOST_STEPS, STEPS, step=1, label="steps")
                guidance = gradio.Slider(1, MOST_GUIDANCE, GUIDANCE, label="guidance")
                seed = gradio.Number(0, precision=0, label="seed")
                button = gradio.Button("generate", variant="primary")
            with gradio.Column(scale=1):
                made = gradio.Image(label="after", type="pil", format="png", interactive=False)
                told = gradio.HTML(parts.hint("The image after the change appears here."))

        def show(drawn: Any, count: float, strength: float, number: float) -> tuple[Any, str]:
            bar = gradio.Progress()
            try:
                image = generate(
                    model, drawn, int(count), strength, int(number or 0), lambda done, all_: bar((done, all_))
                )
            except (OSError, ValueError) as error:
                return None, parts.trouble(str(error))
            return image, ""

        button.click(
            show, [editor, steps, guidance, seed], [made, told], concurrency_limit=1, api_visibility="private"
        )
    return page


def generate(
    model: Any,
    drawn: Any,
    steps: int,
    guidance: float,
    seed: int,
    progress: Callable[[int, int], object] | None = None,
) -> Any:
    """The image after the change, as large as the page shows it.

    Args:
        model: an `UpDiff`.
        drawn: what the editor hands out: ``background`` and ``layers`` as PIL images.
        steps: of the sampling chain.
        guidance: how strongly the map is followed.
        seed: of the noise.
        progress: ``f(done, total)``.

    Raises:
        ValueError: there is no image, or nothing is painted.
    """
    import numpy as np
    import torch
    from PIL import Image

    from lightning_modules.callbacks.pair_writer import to_bytes
    from zoo.models.up_diff import sample

    if not drawn or drawn.get("background") is None:
        raise ValueError("drop an image first")
    size = (model.image_size, model.image_size)
    image = drawn["background"].convert("RGB").resize(size, Image.Resampling.NEAREST)
    layers = [layer.convert("RGBA").getchannel("A") for layer in drawn.get("layers") or []]
    painted = np.zeros(size, dtype=bool)
    for layer in layers:
        painted |= np.asarray(layer.resize(size, Image.Resampling.NEAREST)) > 0
    if not painted.any():
        raise ValueError("paint with the brush what is planned to change")
    before = torch.from_numpy(np.asarray(image, dtype=np.float32).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    change = torch.from_numpy(np.where(painted, 1.0, -1.0).astype(np.float32))[None, None]
    made = sample(
        model,
        before,
        change,
        steps=steps,
        guidance=guidance,
        generator=torch.Generator().manual_seed(seed),
        progress=progress,
    )
    times = max(1, 512 // model.image_size)
    shown = Image.fromarray(to_bytes(made[0]))
    return shown.resize((times * size[0], times * size[1]), Image.Resampling.NEAREST)
