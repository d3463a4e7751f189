"""The page of an image classifier: an image meets the network, the prediction builds up step by step."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

FRAMES = 8  # at most; networks with more steps skip some
SECONDS = 1.6  # in which the prediction builds up


def check(model: Any) -> None:
    """Make sure that images can be shown to the network.

    Raises:
        ValueError: they cannot.
    """
    from cli.demo.explain import preprocessing

    preprocessing(model)


def build(model: Any, name: str) -> Any:
    """The page of one network.

    Raises:
        ImportError: gradio is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio

    from cli.demo import page as parts

    steps = int(getattr(model, "time_steps", 1) or 1)
    reads = f"reads it for T = {steps} steps" if steps > 1 else "reads it once"
    with gradio.Blocks(title=f"Fulgurite: {name}", analytics_enabled=False) as page:
        gradio.HTML(parts.heading(name, f"Drop an image. The network {reads}."))
        with gradio.Row(equal_height=False):
            with gradio.Column(scale=2):
                drop: Any = gradio.Image(
                    type="pil",
                    image_mode=None,
                    sources=["upload", "webcam", "clipboard"],
                    label="image",
                    height=300,
                    elem_classes="fg-drop",
                )
                drop.preprocess = _open
                invert = gradio.Checkbox(label="exchange light and dark", value=False)
            with gradio.Column(scale=5):
                prediction = gradio.HTML(next(frames(model, None, invert=False))[0])
        with gradio.Row(equal_height=False):
            with gradio.Column(scale=3):
                spikes = gradio.HTML()
            with gradio.Column(scale=2):
                energy = gradio.HTML()

        def show(image: Any, exchange: bool) -> Iterator[tuple[str, str, str]]:
            yield from frames(model, image, exchange)

        gradio.on(
            [drop.change, invert.change],
            show,
            [drop, invert],
            [prediction, spikes, energy],
            show_progress="hidden",
            trigger_mode="always_last",
            concurrency_limit=1,
            api_visibility="private",
        )
    return page


def _open(payload: Any) -> Any:
    """A dropped image; or what is wrong with it, for the page to say, since gradio would only say "Error"."""
    from cli.demo.opening import UnreadableImageError, open_dropped

    try:
        return open_dropped(payload)
    except UnreadableImageError as error:
        return error


def frames(model: Any, image: Any, invert: bool, seconds: float = SECONDS) -> Iterator[tuple[str, str, str]]:
    """What the page shows, step by step: prediction, spikes and energy as HTML.

    Args:
        model: the network.
        image: a PIL image, None while there is none, or what kept it from being opened.
        invert: exchange light and dark.
        seconds: that all steps together are shown for.
    """
    from cli.demo import page as parts
    from cli.demo.explain import explain

    if image is None:
        yield parts.hint("The prediction appears here, step by step."), "", ""
        return
    if isinstance(image, Exception):
        yield parts.trouble(str(image)), "", ""
        return
    yield parts.hint("The network is reading ..."), "", ""
    try:
        told = explain(model, image, invert)
    except (OSError, ValueError) as error:
        yield parts.trouble(f"This image cannot be shown to the network: {error}."), "", ""
        return
    total = len(told.probabilities)
    marks = sorted({-(-total * k // FRAMES) for k in range(1, FRAMES + 1)})
    energy = parts.energy(told)
    for step in marks:
        shown = time.monotonic()
        yield (
            parts.prediction(told, step),
            parts.spikes(told, step),
            energy if step == total else "",
        )
        if step != total:
            time.sleep(max(0.0, seconds / len(marks) - (time.monotonic() - shown)))
