"""``fulgurite demo``: a page on this machine where a picture meets a network."""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PAUSE = 0.4  # seconds between two steps on the page


def run(words: Sequence[str]) -> None:
    """Open the page and serve it until interrupted.

    Args:
        words: options after ``fulgurite demo``.
    """
    parser = argparse.ArgumentParser(
        prog="fulgurite demo",
        description="Open a local page: drop a picture, see the prediction build up over the time steps, the"
        " spikes and the energy. Nothing leaves this machine.",
        allow_abbrev=False,
    )
    parser.add_argument("name", help="what zoo.load takes: spiking_cnn_nano, hf-hub:OWNER/NAME, ...")
    parser.add_argument("--port", type=int, default=7860, help="of 127.0.0.1")
    parser.add_argument("--no-browser", action="store_true", help="serve the page without opening a browser")
    options = parser.parse_args(list(words))
    _serve(options)


def _serve(options: Any) -> None:
    import zoo
    from cli import _errors
    from cli.main import fail

    try:
        model = zoo.load(options.name, pretrained=True)
    except (zoo.UnknownModelError, zoo.CheckpointError, ValueError, OSError) as error:
        fail(_errors.summary(error))
    try:
        page = build(model, options.name)
    except ImportError:
        fail("the page needs gradio: pip install 'fulgurite[demo]'")
    try:
        page.launch(
            server_name="127.0.0.1",
            server_port=options.port,
            share=False,
            inbrowser=not options.no_browser,
            show_error=True,
        )
    except OSError as error:
        fail(f"{error}; is port {options.port} taken? --port takes another")


def build(model: Any, name: str) -> Any:
    """The page of one network.

    Raises:
        ImportError: gradio is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio

    with gradio.Blocks(title=f"Fulgurite: {name}") as page:
        gradio.Markdown(f"# {name}\nDrop a picture. The network reads it for T = {_steps(model)} steps.")
        with gradio.Row():
            with gradio.Column():
                picture = gradio.Image(type="pil", label="picture")
                invert = gradio.Checkbox(label="exchange light and dark", value=False)
            with gradio.Column():
                step = gradio.Markdown()
                label = gradio.Label(num_top_classes=5, label="prediction so far")
            curve = gradio.Plot(label="probability over time")
        raster = gradio.Plot(label="spikes")
        energy = gradio.Markdown()
        outputs = [step, label, curve, raster, energy]

        def show(image: Any, light_on_dark: bool) -> Iterator[tuple[Any, ...]]:
            yield from frames(model, image, light_on_dark)

        picture.change(show, [picture, invert], outputs)
        invert.change(show, [picture, invert], outputs)
    return page


def _steps(model: Any) -> int:
    return int(getattr(model, "time_steps", 1))


def frames(model: Any, image: Any, invert: bool, pause: float = PAUSE) -> Iterator[tuple[Any, ...]]:
    """What the page shows, step by step: text, best classes, curves, raster, energy.

    Args:
        model: the network.
        image: a PIL picture, or None while there is none.
        invert: exchange light and dark.
        pause: seconds between two steps.
    """
    from cli._explain import explain
    from lightning_modules import figures

    if image is None:
        yield "", None, None, None, ""
        return
    told = explain(model, image, invert)
    total = len(told.probabilities)
    raster = figures.raster(told.spikes, told.image) if told.spikes else None
    for step in range(1, total + 1):
        best = list(told.best(total))  # the same classes in every frame, so that lines keep their colours
        lines = {name: told.probabilities[:step, told.labels.index(name)].tolist() for name in best[:3]}
        last = step == total
        yield (
            f"after step {step} of {total}",
            told.best(step),
            figures.over_time(lines, total),
            raster if last else None,
            told.energy_text if last else "",
        )
        if not last:
            time.sleep(pause)
