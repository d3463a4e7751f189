"""``fulgurite demo``: serves the page of a network to this machine; its task decides what the page shows."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cli.errors import fail, summary
from cli.signals import Stopped
from cli.words import WordParser

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST, LAST = 7860, 7960  # ports tried if none is named
BIGGEST = "40mb"  # image
PAGES = {  # by task: the module with the functions `check(model)`, which raises, and `build(model, name)`
    "classification": "cli.demo.classification",
    "image-to-image": "cli.demo.image_to_image",
    "language": "cli.demo.language",
}


def run(words: Sequence[str]) -> None:
    """Open the page and serve it until interrupted.

    Args:
        words: options after ``fulgurite demo``.
    """
    parser = WordParser(
        prog="fulgurite demo",
        description="Open a local page: drop an image, see the prediction build up over the time steps, the"
        " spikes and the energy; what other networks take, their pages say. Nothing leaves this machine.",
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
    from cli.demo.scratch import scratch_folder

    try:
        model = zoo.load(options.name, pretrained=True)
        if not (task := zoo.task_of(model)).demo:
            shown = ", ".join(t for t in zoo.list_tasks() if zoo.get_task(t).demo)
            kind = f"{task.noun_phrase} ({task.name})"
            fail(f"{options.name} is {kind}; the page shows networks for {shown} only")
        parts = import_module(PAGES[task.name])
        parts.check(model)
    except (zoo.UnknownModelError, zoo.CheckpointError, ValueError, TypeError, OSError) as error:
        fail(summary(error))
    with scratch_folder() as scratch:
        os.environ["GRADIO_TEMP_DIR"] = str(scratch)  # images that were dropped go when the page does
        page = parts.build(model, options.name)
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
