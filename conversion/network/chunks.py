"""A converted network over fewer steps at a time, for less memory."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import nn

from spiking.neurons.base import Temporal
from spiking.streaming import streaming

if TYPE_CHECKING:
    from torch import Tensor

    from conversion.model import ConvertedModel


def check_chunk(value: int | None, model: ConvertedModel) -> int | None:
    """``value``, if the method of ``model`` can be cut in time.

    Raises:
        ValueError: no positive integer, or a method whose steps depend on later ones.
    """
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"chunk must be an integer of at least 1, or None for all steps at once, got {value!r}"
        )
    if not model.method.causal:
        raise ValueError(
            f"{model.method.name} looks at later steps, so its {model.time_steps} steps cannot run"
            f" {value} at a time; run fewer images at a time instead"
        )
    return value


def in_chunks(model: ConvertedModel, x: Tensor, steps: bool = False, *, chunk: int) -> Tensor:
    """What ``model(x, steps=steps)`` gives, from at most ``chunk`` steps at a time.

    Inside `spiking.streaming` the stream goes on.
    """
    clock = model.clock
    whole, window, first = clock.time_steps, clock.window, clock.first
    streams = any(m._stream is not None for m in model.modules() if isinstance(m, Temporal))
    parts = []
    with nullcontext() if streams else streaming(model):
        try:
            for begin in range(0, whole, chunk):
                count = min(chunk, whole - begin)
                clock.set(count, count, 0)
                parts.append(nn.Module.__call__(model, x, steps=True))
        finally:
            clock.set(whole, window, first)
    logits = torch.cat(parts)
    return logits if steps else logits.mean(dim=0)
