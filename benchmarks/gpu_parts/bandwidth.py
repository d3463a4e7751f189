"""Part (c): how near the kernels come to a copy of the same bytes on the device."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import adapter
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpu_parts.work import Work


def measure(work: Work, steps: int, dtype: torch.dtype) -> dict[str, Any]:
    """GB/s of LIF forward and forward with backward, and of copies that move as much.

    A forward pass reads and writes its tensor once, as a copy does. Forward with backward reads currents
    twice and a gradient, and writes spikes and a gradient: two and a half copies.
    """
    numbers = 1 << (10 if work.tiny else 26)
    x = torch.randn(steps, numbers // steps, device=work.device, dtype=dtype)
    g, y = torch.randn_like(x), torch.empty_like(x)
    layer = adapter.make_lif()

    def forward() -> None:
        with torch.no_grad():
            layer(x)

    def both() -> None:
        leaf = x.detach().requires_grad_()
        layer(leaf).backward(g)

    def rate(run: Callable[[], Any], tensors: int) -> float:
        times = work.timed(run, seconds=0.5, at_least=2 if work.tiny else 10)
        return round(tensors * x.nbytes / statistics.median(times) / 1e9, 1)

    found = {"copy GB/s": rate(lambda: y.copy_(x), 2), "forward GB/s": rate(forward, 2)}
    found["both GB/s"] = rate(both, 5)
    return found | {"both, of a copy": round(found["both GB/s"] / max(found["copy GB/s"], 1e-9), 3)}


def run(work: Work) -> None:
    """A row for each dtype and T."""
    for dtype in (torch.float32, torch.bfloat16):
        for steps in (4,) if work.tiny else (4, 16, 64):
            label = f"LIF, {str(dtype).removeprefix('torch.')}, T = {steps}"
            work.case(label, lambda s=steps, d=dtype: measure(work, s, d), needs=0.0 if work.tiny else 3.0)
