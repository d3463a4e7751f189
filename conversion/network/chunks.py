"""A converted network over fewer steps at a time, for less memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from spiking.neurons.stream import sessions
from spiking.streaming import as_one, streaming

if TYPE_CHECKING:
    from torch import Tensor

    from conversion.network.annotation import Annotation
    from conversion.network.clock import Clock


def check_chunk(value: int | None, annotation: Annotation) -> int | None:
    """``value``, if a network of this kind can run so many steps at a time.

    Raises:
        ValueError: no positive integer, or a method whose steps depend on later ones.
    """
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"chunk must be an integer of at least 1, or None for all steps at once, got {value!r}"
        )
    if not annotation.traits.causal:
        raise ValueError(
            f"{annotation.traits.name} looks at later steps, so its {annotation.clock.time_steps} steps"
            f" cannot run {value} at a time; run fewer images at a time instead"
        )
    return value


def in_chunks(network: nn.Module, clock: Clock, x: Tensor, steps: bool = False, *, chunk: int) -> Tensor:
    """What ``network(x, steps=steps)`` gives, from at most ``chunk`` steps at a time.

    Inside `spiking.streaming` the stream goes on.
    """
    whole = clock.time_steps
    parts = []
    with as_one(network) if sessions(network.modules()) else streaming(network):
        for begin in range(0, whole, chunk):
            with clock.running(min(chunk, whole - begin)):
                parts.append(nn.Module.__call__(network, x, steps=True))
    logits = torch.cat(parts)
    return logits if steps else logits.mean(dim=0)
