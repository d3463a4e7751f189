"""Feeds steps to a network chunk by chunk, and tells what it thinks and how long it took.

Axes: T steps of a chunk, B batch (1), K classes.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from spiking import streaming

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from cli.stream.sources import Step

BINS = 400  # of latencies, logarithmic, 24 a factor of ten from a microsecond on


@dataclass
class Latencies:
    """Mean, largest and quantiles of any number of latencies, in seconds, in constant memory."""

    bins: list[int] = field(default_factory=lambda: [0] * BINS)
    count: int = 0
    total: float = 0.0
    largest: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        place = int(24 * math.log10(max(seconds, 1e-6) / 1e-6))
        self.bins[min(place, BINS - 1)] += 1
        self.count += 1
        self.total += seconds
        self.largest = max(self.largest, seconds)

    def quantile(self, share: float) -> float:
        """The upper edge of the bin in which that share is reached; a tenth too large at most."""
        left = share * self.count
        for place, number in enumerate(self.bins):
            left -= number
            if left <= 0:
                return float(min(1e-6 * 10 ** ((place + 1) / 24), self.largest))
        return self.largest


@dataclass(frozen=True)
class Seen:
    """What is known after a chunk.

    Attributes:
        steps: so far.
        logits: of the chunk's steps, ``[T, K]``.
        mean: of the logits of all steps so far, float64 ``[K]``.
        events: of the chunk.
        end: microsecond, or image, with which the chunk ends.
        span: microseconds of the chunk.
        latency: seconds from the chunk's frames to the answer.
    """

    steps: int
    logits: Tensor
    mean: Tensor
    events: int
    end: int
    span: int
    latency: float

    @property
    def best(self) -> tuple[int, float]:
        """The likeliest class and its probability."""
        shares = self.mean.softmax(0)
        k = int(shares.argmax())
        return k, float(shares[k])


def chunks(steps: Iterable[Step], size: int) -> Iterator[list[Step]]:
    """Steps in lists of `size`; the last may be shorter."""
    held: list[Step] = []
    for step in steps:
        held.append(step)
        if len(held) == size:
            yield held
            held = []
    if held:
        yield held


def play(model: Any, steps: Iterable[Step], size: int = 1) -> Iterator[Seen]:
    """Run a network over a stream; nothing of it is kept but the neurons' states.

    Args:
        model: a spiking classifier in evaluation mode.
        steps: of the stream.
        size: steps of a chunk.

    Raises:
        ValueError: the network has no neurons.
        RuntimeError: it cannot stream, with the unit that is in the way.
    """
    total: Tensor | None = None
    done = before = 0
    device = next(model.parameters()).device
    with torch.no_grad(), streaming(model):
        for chunk in chunks(steps, size):
            started = time.perf_counter()
            x = torch.stack([step.x for step in chunk]).to(device)
            logits = model(x, steps=True)[:, 0].cpu()
            latency = time.perf_counter() - started
            part = logits.double().sum(0)
            total = part if total is None else total + part
            done += len(chunk)
            end = chunk[-1].end
            yield Seen(
                done, logits, total / done, sum(s.events for s in chunk), end, max(0, end - before), latency
            )
            before = end
