"""``fulgurite export``: a network as a file of another program."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import CommandError, fail, summary
from cli.words import WordParser

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zoo import Exported


def run(words: Sequence[str]) -> None:
    """Export.

    Args:
        words: options after ``fulgurite export``.
    """
    parser = WordParser(
        prog="fulgurite export",
        description="Write a network as a file that other programs run, compare the file with the network,"
        " and leave no file behind where they differ. ONNX runs in onnxruntime, pt2 in PyTorch;"
        " NIR is read by SpikingJelly, snnTorch, Norse and the tools of chips.",
    )
    parser.add_argument(
        "source", help="a name (spiking_cnn_nano), a folder of zoo.save, or a run's folder (runs/NAME)"
    )
    parser.add_argument("--to", required=True, metavar="FORMAT", help="onnx, pt2 or nir")
    parser.add_argument("--output", metavar="PATH", help="file to write; NAME.onnx and so on if missing")
    parser.add_argument(
        "--time-steps", type=int, metavar="T", help="T of the file; if missing, that of the network"
    )
    parser.add_argument(
        "--step",
        action="store_true",
        help="one step a call, with the states of the neurons as explicit inputs and outputs",
    )
    parser.add_argument(
        "--sequence",
        action="store_true",
        help="T frames [T, B, C, H, W] go in, as from event cameras, instead of still images",
    )
    _export(parser.parse_args(list(words)))


def _export(options: Any) -> None:
    if options.time_steps is not None and options.time_steps < 1:
        fail(f"--time-steps must be at least 1, got {options.time_steps}")
    import zoo
    from zoo.export.export import checked_target
    from zoo.export.formats import FORMATS, name_of_format

    try:
        to = name_of_format(options.to, None)
        suffix = ("-step" if options.step else "") + FORMATS[to].suffix
        path = checked_target(options.output or f"{Path(options.source).name}{suffix}", to)
        model = opened(options.source, options.time_steps)
        done = zoo.export(
            model, path, to, step=options.step, sequence=options.sequence, progress=timed_lines()
        )
    except (
        CommandError,
        zoo.CheckpointError,
        zoo.ExportError,
        zoo.HubError,
        zoo.UnknownModelError,
        TypeError,
        ValueError,
    ) as error:
        fail(summary(error))
    _show(done)


def opened(source: str, time_steps: int | None) -> Any:
    """The network that is meant; an entry without trained weights gets random ones, and its file says so.

    Args:
        source: as typed.
        time_steps: T, None for its own.
    """
    import zoo
    from cli.networks import load
    from zoo.export.interface import check_task
    from zoo.registry import get_entry
    from zoo.tasks import get_task

    arguments: dict[str, Any] = {} if time_steps is None else {"time_steps": time_steps}
    if not zoo.is_registered(source) or Path(source).is_dir():
        return load(source, **arguments)
    entry = get_entry(source)
    check_task(get_task(entry.task), source)  # before billions of weights are drawn
    if entry.weights:
        return load(source, **arguments)
    model: Any = zoo.load(source, pretrained=False, **arguments)
    model.origin = {"name": "random weights, not trained"}
    print(f"{source} has no trained weights: the file gets random ones, and says so")
    return model


def timed_lines() -> Callable[[str], None]:
    """Prints each message with the seconds so far."""
    started = time.monotonic()

    def say(message: str) -> None:
        print(f"{time.monotonic() - started:5.0f} s  {message}", flush=True)

    return say


def _show(done: Exported) -> None:
    size = done.path.stat().st_size
    print(f"written: {done.path} ({size / 1e6:,.1f} MB), {done.checked}")
    for kind, ports in (("input", done.inputs), ("output", done.outputs)):
        for name, axes in ports.items():
            print(f"  {kind:6}  {name} {axes}")
