"""``fulgurite demo``: a page on this machine where an image meets a network."""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from cli.errors import fail, summary
from cli.signals import Stopped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FIRST, LAST = 7860, 7960  # ports tried if none is named
FRAMES = 8  # at most; networks with more steps skip some
SECONDS = 1.6  # in which the prediction builds up
BIGGEST = "40mb"  # image


def run(words: Sequence[str]) -> None:
    """Open the page and serve it until interrupted.

    Args:
        words: options after ``fulgurite demo``.
    """
    parser = argparse.ArgumentParser(
        prog="fulgurite demo",
        description="Open a local page: drop an image, see the prediction build up over the time steps, the"
        " spikes and the energy. Nothing leaves this machine.",
        allow_abbrev=False,
    )
    parser.add_argument("name", help="what zoo.load takes: spiking_cnn_nano, hf-hub:OWNER/NAME, ...")
    parser.add_argument(
        "--port", type=int, help=f"of 127.0.0.1; missing: the first that is free from {FIRST} on"
    )
    parser.add_argument("--no-browser", action="store_true", help="serve the page without opening a browser")
    options = parser.parse_args(list(words))
    _serve(options)


def _serve(options: Any) -> None:

    if options.port is not None and not 1 <= options.port <= 65535:
        fail(f"--port must be between 1 and 65535, got {options.port}")
    if importlib.util.find_spec("gradio") is None:
        fail("the page needs gradio: pip install 'fulgurite[demo]'")
    import zoo
    from cli.demo.explain import preprocessing
    from cli.demo.scratch import scratch_folder

    try:
        model = zoo.load(options.name, pretrained=True)
        if not (task := zoo.task_of(model)).demo:
            shown = ", ".join(t for t in zoo.list_tasks() if zoo.get_task(t).demo)
            kind = f"{task.noun_phrase} ({task.name})"
            fail(f"{options.name} is {kind}; the page shows networks for {shown} only")
        preprocessing(model)
    except (zoo.UnknownModelError, zoo.CheckpointError, ValueError, TypeError, OSError) as error:
        fail(summary(error))
    with scratch_folder() as scratch:
        os.environ["GRADIO_TEMP_DIR"] = str(scratch)  # images that were dropped go when the page does
        page = build(model, options.name)
        try:
            url = launch(page, options.port, inbrowser=not options.no_browser)
        except OSError as error:
            taken = f"port {options.port}" if options.port else f"every port from {FIRST} to {LAST - 1}"
            fail(f"{taken} of 127.0.0.1 is taken, or may not be used ({error}); --port N takes another")
        print(f"{options.name}: {url} (Ctrl-C ends it)", flush=True)
        try:
            threading.Event().wait()
        except Stopped as stop:
            if stop.number != signal.SIGINT:  # Ctrl-C is how the page is meant to end
                raise
        finally:
            page.close(verbose=False)


def launch(page: Any, port: int | None = None, inbrowser: bool = False) -> str:
    """Serve the page to this machine only, in threads of their own; its address.

    Raises:
        OSError: the port is taken.
    """
    from cli.demo import page as parts
    from cli.demo.guard import SameMachineOnly

    app, url, _ = page.launch(
        server_name="127.0.0.1",
        server_port=port,
        share=False,
        inbrowser=inbrowser,
        prevent_thread_lock=True,
        quiet=True,
        show_error=True,
        max_file_size=BIGGEST,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        css=parts.STYLE,
    )
    app.middleware_stack = SameMachineOnly(app.middleware_stack)  # outside of what gradio adds itself
    return str(url)


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
