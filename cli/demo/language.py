"""The page of a language model of text and images: a prompt goes in, its answer builds up."""

from __future__ import annotations

import os
import queue
import threading
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoo.models.emu3_5.pipeline import Answer, Pipeline

PASSES, MOST_PASSES = 8, 64  # of an image at once
PERIOD = 0.1  # seconds between two looks at what was written
NAMES = {"ar": "token by token", "dida": "images at once (DiDA)"}


def check(model: Any) -> None:
    """Make sure that the page can work with the network.

    Raises:
        ValueError: it is of no kind that the page knows, or it cannot read text or show images.
    """
    from zoo.models.emu3_5 import Emu35

    if not isinstance(model, Emu35):
        raise ValueError(f"the page shows models such as emu3_5_tiny, not {type(model).__name__}")
    model.vocabulary.encode("")
    _ = model.pictures
    if model.grid is None and not model.vocabulary.grid_tokens(1, 1):
        raise ValueError(
            "this network does not know the size of its images, which runs of NextTokenTask keep with weights"
        )


def build(model: Any, name: str) -> Any:
    """The page of one network.

    Raises:
        ImportError: gradio is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio

    from cli.demo import page as parts
    from zoo.models.emu3_5.pipeline import DIDA, Pipeline

    pipeline = Pipeline(model)
    at_once = DIDA in pipeline.ways
    how = "in both of its ways" if at_once else "token by token"
    with gradio.Blocks(title=f"Fulgurite: {name}", analytics_enabled=False) as page:
        gradio.HTML(parts.heading(name, f"Write a prompt. The network goes on with text and images, {how}."))
        with gradio.Row(equal_height=False):
            with gradio.Column(scale=2):
                known = getattr(model.vocabulary.text, "words", ())
                words = f"words that it knows: {', '.join(known)}" if known else None
                prompt = gradio.Textbox(label="prompt", info=words, lines=1, submit_btn=False)
                seed = gradio.Number(0, precision=0, label="seed")
                passes = gradio.Slider(
                    1, MOST_PASSES, PASSES, step=1, label="passes of an image at once", visible=at_once
                )
                button = gradio.Button("write", variant="primary")
            with gradio.Column(scale=5):
                written = gradio.HTML(parts.hint("The answer appears here as it is written."))

        def show(text: str, number: float, count: float) -> Iterator[str]:
            yield from frames(pipeline, text or "", int(number or 0), int(count))

        gradio.on(
            [prompt.submit, button.click],
            show,
            [prompt, seed, passes],
            written,
            show_progress="hidden",
            trigger_mode="always_last",
            concurrency_limit=1,
            api_visibility="private",
        )
    return page


@dataclass
class State:
    """How far one way of writing is.

    Attributes:
        ids: of the text that came.
        images: that are finished.
        step: of the image that is being drawn.
        steps: that it takes.
        answer: in the end.
    """

    ids: list[int] = field(default_factory=list)
    images: int = 0
    step: int = 0
    steps: int = 0
    answer: Answer | None = None


class _LeftError(Exception):
    """The reader has gone."""


def frames(pipeline: Pipeline, prompt: str, seed: int, passes: int = PASSES) -> Iterator[str]:
    """What the page shows, one moment after the other, as HTML.

    Args:
        pipeline: of the network.
        prompt: what is to be continued.
        seed: of the random numbers; all ways get the same.
        passes: of an image at once.
    """
    from cli.demo import page as parts
    from zoo.models.emu3_5.dida import Denoising

    if not prompt.strip():
        yield parts.trouble("Write a prompt first.")
        return
    pipeline.denoising = Denoising(passes=passes)
    states = {way: State() for way in pipeline.ways}
    try:
        for way, state in states.items():
            for _ in _moments(pipeline, prompt, seed, way, state):
                yield told(pipeline, states)
    except ValueError as error:
        yield parts.trouble(f"This prompt cannot be continued: {error}.")
        return
    yield told(pipeline, states)


def _moments(pipeline: Pipeline, prompt: str, seed: int, way: str, state: State) -> Iterator[None]:
    """Write in a thread of its own, and come back whenever something may have changed."""
    import torch

    from zoo.models.emu3_5.decoding import Listener

    gone = threading.Event()
    results: queue.Queue[Answer | Exception] = queue.Queue()

    def text(token: int) -> None:
        if gone.is_set():
            raise _LeftError
        state.ids.append(token)

    def image(done: int, of: int) -> None:
        if gone.is_set():
            raise _LeftError
        state.step, state.steps = done, of
        state.images += done == of

    def work() -> None:
        try:
            generator = torch.Generator(pipeline.device).manual_seed(seed)
            listener = Listener(text=text, image=image)
            results.put(pipeline(prompt, way=way, listener=listener, generator=generator))
        except Exception as error:  # told by the thread that serves the page
            results.put(error)

    threading.Thread(target=work, name="writing", daemon=True).start()
    try:
        while True:
            try:
                found = results.get(timeout=PERIOD)
            except queue.Empty:
                yield
                continue
            if isinstance(found, Exception):
                raise found
            state.answer = found
            yield
            return
    finally:
        gone.set()


def told(pipeline: Pipeline, states: dict[str, State]) -> str:
    """All ways side by side, and what they cost."""
    columns = "".join(_column(pipeline, way, state) for way, state in states.items())
    answers = {way: state.answer for way, state in states.items() if state.answer is not None}
    done = len(answers) == len(states)
    return (
        f'<div class="fg fg-writing" data-done="{int(done)}"><div class="fg-columns fg-top">{columns}</div>'
        f"{_costs(answers) if done else ''}</div>"
    )


def _column(pipeline: Pipeline, way: str, state: State) -> str:
    from cli.demo import page as parts

    head = f"<h3>{escape(NAMES[way])}</h3>"
    if state.answer is None:
        text = pipeline.model.vocabulary.decode(state.ids)
        number = state.images + (state.step < state.steps)  # of the one at work, or that was just finished
        drawn = f"image {number}: {state.step} of {state.steps}" if state.steps else "reading ..."
        share = state.step / state.steps if state.steps else 0.0
        body = f'<p>{escape(text)}</p><div class="fg-bars">{parts.bar("", share, escape(drawn))}</div>'
    else:
        body = "".join(_part(kind, content) for kind, content in state.answer.parts)
        body = body or "<p>(nothing)</p>"
        if not state.answer.ended:
            body += "<small>The context ends here.</small>"
    return f'<div class="fg-way" data-way="{way}">{head}{body}</div>'


def _part(kind: str, content: Any) -> str:
    from cli.demo import page as parts
    from lightning_modules.callbacks.writings import picture

    if kind == "image":
        return parts.inline(picture(content), "an image that the network drew")
    label = "" if kind == "text" else f"<i>{escape(kind)}: </i>"
    return f'<p class="fg-text">{label}{escape(content)}</p>'


def _costs(answers: dict[str, Answer]) -> str:
    """Passes and seconds of all ways as bars."""
    from cli.demo import page as parts

    rows = ""
    for title, unit, values in (
        ("passes", "", {way: float(a.passes) for way, a in answers.items()}),
        ("time", " s", {way: a.seconds for way, a in answers.items()}),
    ):
        most = max(values.values()) or 1.0
        for way, value in values.items():
            number = f"{value:,.0f}" if title == "passes" else f"{value:.2f}{unit}"
            kind = "ann" if way == "ar" and len(values) > 1 else ""
            rows += parts.bar(f"{title}, {escape(NAMES[way])}", value / most, number, kind)
    notes = [
        f"{escape(NAMES[way])}: {len(a.images)} image{'s' * (len(a.images) != 1)} in {a.image_passes} passes"
        for way, a in answers.items()
    ]
    return (
        f'<div class="fg-costs"><h3>What it took</h3><div class="fg-bars">{rows}</div>'
        f"<small>{'; '.join(notes)}.</small></div>"
    )
