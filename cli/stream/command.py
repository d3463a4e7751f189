"""``fulgurite stream``: the running prediction of a network over a recording or a folder of images."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import CommandError, fail
from cli.words import WordParser

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cli.stream.player import Latencies, Seen
    from cli.stream.sources import EventSource, ImageSource, Step

ROUNDING = 1e-5  # of a logit


def run(words: Sequence[str]) -> None:
    """Stream.

    Args:
        words: options after ``fulgurite stream``.
    """
    parser = WordParser(
        prog="fulgurite stream",
        description="Feed a recording of events, or a folder of images, to a spiking network chunk by"
        " chunk, as a camera would send it, and print what it thinks so far. The neurons keep their"
        " potentials from one chunk to the next; nothing else is kept, so a stream may be as long as it"
        " likes.",
    )
    parser.add_argument(
        "name", help="what zoo.load takes: a checkpoint, a folder of zoo.save, hf-hub:OWNER/NAME, ..."
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--events",
        metavar="FILE",
        help="a recording: .bin, .bs2, .aedat, .aedat4, .dat, .raw, .h5, .npz, .mat",
    )
    source.add_argument(
        "--camera-like", metavar="DIR", help="a folder of images, one time step each, by name"
    )
    parser.add_argument("--frame-ms", type=float, metavar="MS", help="one frame every MS milliseconds")
    parser.add_argument("--frame-events", type=int, metavar="N", help="one frame for every N events")
    parser.add_argument(
        "--split-by",
        choices=("time", "count"),
        default="time",
        help="with neither of these the recording becomes the T frames the network was made for, each of the"
        " same time, or of the same number of events",
    )
    parser.add_argument(
        "--sensor-size", type=int, nargs=2, metavar=("H", "W"), help="where the file does not tell"
    )
    parser.add_argument("--chunk", type=int, default=1, metavar="N", help="frames fed at once (default 1)")
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="play the source N times, as one stream"
    )
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="print every N-th chunk; 0: only the end"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="run the whole in one pass, too, and compare all logits bit for bit",
    )
    options = parser.parse_args(list(words))
    _check(options)
    _stream(options)


def _check(options: Any) -> None:
    for name, low in (("frame_ms", 0.001), ("frame_events", 1), ("chunk", 1), ("repeat", 1), ("every", 0)):
        value = getattr(options, name)
        if value is not None and value < low:
            fail(f"--{name.replace('_', '-')} must be at least {low}, got {value}")
    if options.sensor_size is not None and min(options.sensor_size) < 1:
        fail(f"--sensor-size is height and width in pixels, got {options.sensor_size}")
    if options.frame_ms is not None and options.frame_events is not None:
        fail("--frame-ms and --frame-events are two ways of cutting; give one")
    if options.camera_like is not None:
        for name in ("frame_ms", "frame_events", "sensor_size"):
            if getattr(options, name) is not None:
                fail(f"--{name.replace('_', '-')} belongs to --events; images are frames already")


def _stream(options: Any) -> None:
    import zoo
    from cli import networks
    from cli.stream.sources import Cut, EventSource, ImageSource

    model = networks.load(options.name)
    if zoo.task_of(model).name != "classification":
        fail(f"{options.name} is {zoo.task_of(model).noun_phrase}; stream runs classifiers")
    source: EventSource | ImageSource
    if options.events is not None:
        size = None if options.sensor_size is None else (options.sensor_size[0], options.sensor_size[1])
        cut = Cut(options.frame_ms, options.frame_events, options.split_by)
        source = EventSource(Path(options.events), model, cut, size)
    else:
        source = ImageSource(Path(options.camera_like), model)
    _play(options, model, source)


@dataclass
class Totals:
    """What the last lines say."""

    latencies: Latencies
    events: int = 0
    chunks: int = 0
    started: float = field(default_factory=time.perf_counter)
    memory: list[int] = field(default_factory=list)


def repeated(source: Any, times: int) -> Iterator[Step]:
    """The steps of a source that is played again and again, its clock running on."""
    offset = 0
    for _ in range(times):
        end = offset
        for step in source:
            end = offset + step.end
            yield replace(step, end=end)
        offset = end


def _play(options: Any, model: Any, source: Any) -> None:
    import torch

    from cli.demo.explain import class_names
    from cli.stream.player import Latencies, play

    totals = Totals(Latencies())
    names: list[str] = []
    kept: list[Any] = []
    logits: list[Any] = []
    steps = repeated(source, options.repeat)
    if options.check:
        steps = _keeping(steps, kept)
    seen = None
    for seen in play(model, steps, options.chunk):
        names = names or class_names(model, len(seen.mean))
        totals.latencies.add(seen.latency)
        totals.events += seen.events
        totals.chunks += 1
        if totals.chunks in (1, 100) or totals.chunks % 1000 == 0:
            _note_memory(totals)
        if options.check:
            logits.append(seen.logits)
        if options.every and totals.chunks % options.every == 0:
            print(_line(seen, names, bool(options.events)), flush=True)
    if seen is None:
        raise CommandError("the source has no frames")
    _note_memory(totals)
    for line in _ending(totals, seen, names, source):
        print(line)
    if options.check:
        with torch.no_grad():
            whole = model(torch.stack(kept), steps=True)[:, 0]
        _compare(whole, torch.cat(logits), seen.steps)


def _compare(whole: Any, parts: Any, steps: int) -> None:
    """Say whether one pass gave the same; a matrix product of one row may round unlike one of many."""
    far = float((whole - parts).abs().max())
    if far > ROUNDING:
        fail(f"one pass over all {steps} steps gives other logits, by up to {far:.3g}")
    told = (
        "bit for bit"
        if far == 0
        else f"but for rounding: {far:.2g} at most, by matrix products of other sizes"
    )
    print(f"one pass over all {steps} steps gives the same logits, {told}")


def _keeping(steps: Iterator[Step], kept: list[Any]) -> Iterator[Step]:
    for step in steps:
        kept.append(step.x)
        yield step


def _line(seen: Seen, names: list[str], events: bool) -> str:
    k, share = seen.best
    where = f"{seen.end / 1000:10.1f} ms" if events else f"image {seen.end:6d}"
    rate = f"  {1e6 * seen.events / max(1, seen.span):11,.0f} events/s" if events else ""
    return f"{where}{rate}  {1000 * seen.latency:8.2f} ms  {names[k]} ({share:.0%})"


def _ending(totals: Totals, seen: Seen, names: list[str], source: Any) -> Iterator[str]:
    k, share = seen.best
    late = getattr(getattr(source, "tally", None), "late", 0)
    seconds = time.perf_counter() - totals.started
    times = totals.latencies
    yield f"prediction: {names[k]} ({share:.0%}) after {seen.steps:,} steps in {totals.chunks:,} chunks"
    yield (
        f"latency of a chunk: mean {1000 * times.total / times.count:.2f} ms, median"
        f" {1000 * times.quantile(0.5):.2f}, 99 % {1000 * times.quantile(0.99):.2f},"
        f" largest {1000 * times.largest:.2f}"
    )
    if totals.events:
        length = seen.end / 1e6
        yield (
            f"events: {totals.events:,} in {length:.3f} s of recording"
            f" ({totals.events / max(length, 1e-6):,.0f} a second); processed"
            f" {totals.events / seconds:,.0f} a second, {length / seconds:.2f} times as fast as they came"
        )
    if late:
        yield f"{late:,} events came after their frame had been handed on, and count in the next"
    if len(totals.memory) > 1:
        early, most = totals.memory[-2:]
        yield f"memory: {early / 1e6:,.0f} MB early on, {most / 1e6:,.0f} MB at most afterwards"


def _note_memory(totals: Totals) -> None:
    """The resident memory, where the system tells: the first, the early one, and the largest since."""
    if not sys.platform.startswith("linux"):
        return
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    totals.memory.append(pages * os.sysconf("SC_PAGE_SIZE"))
    if len(totals.memory) > 3:
        totals.memory[2:] = [max(totals.memory[2:])]
