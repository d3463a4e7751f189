"""What half precision costs where a processor has no instructions for it."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import lightning.pytorch as pl


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers itself; other families than x86 are given the benefit."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    known = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(ask is None or ask() for ask in known)


def slow_precision(trainer: pl.Trainer) -> str | None:
    """A warning for a run on a CPU in a precision that is slower there than float32; None where it is not."""
    precision = str(trainer.precision)
    if trainer.strategy.root_device.type != "cpu" or not precision.startswith("bf16") or has_bfloat16():
        return None
    return (
        f"trainer.precision: {precision} on a CPU without bfloat16 instructions (AVX512-BF16 or AMX)"
        " is several times slower than --trainer.precision 32-true"
    )
