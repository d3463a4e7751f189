"""Fused multi-step kernels behind `spiking.functional.neurons`.

``rules`` holds the equations, ``cpu`` writes, compiles and runs them, ``triton`` does the same job on CUDA,
``ops`` makes them differentiable. The compiler is imported when a fast kernel is first wanted.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from spiking.surrogate import Surrogate

BACKENDS = ("auto", "reference", "cpu", "triton")
HAS_LLVM = importlib.util.find_spec("llvmlite") is not None
HAS_TRITON = importlib.util.find_spec("triton") is not None
HALVES = (torch.bfloat16, torch.float16)


class Placed(Protocol):
    """A tensor, or what is known of one."""

    @property
    def dtype(self) -> torch.dtype:
        """Of its numbers."""

    @property
    def device(self) -> torch.device:
        """Where it lies."""


def refusal(engine: str, x: Placed, surrogate: Surrogate, has_triton: bool) -> str | None:
    """Why ``engine`` cannot run this case, or None if it can.

    Args:
        engine: ``"cpu"`` or ``"triton"``.
        x: currents.
        surrogate: slope of the step.
        has_triton: whether the neuron has a Triton kernel, too: all whose neurons share their parameters.
    """
    if x.dtype is not torch.float32 and x.dtype not in HALVES:
        return f"dtype {x.dtype}"
    if engine == "cpu" and not HAS_LLVM:
        if not torch.compiler.is_compiling():
            _say_slow()
        return "llvmlite is not installed"
    if engine == "triton" and not HAS_TRITON:
        return "triton is not installed"
    if engine == "triton" and not has_triton:
        return "this neuron has no Triton kernel"
    from spiking.kernels.rules.surrogates import has_formula

    if not has_formula(surrogate):
        return f"the surrogate {surrogate}"
    return _cpu_refusal(x) if engine == "cpu" else _triton_refusal(x)


def _cpu_refusal(x: Placed) -> str | None:
    if x.device.type != "cpu":
        return f"the tensor is on {x.device}"
    if x.dtype is torch.float16:
        if torch.compiler.is_compiling():
            return "float16 in a compiled program"
        from spiking.kernels.cpu.compiler import has_float16

        if not has_float16():
            return "float16 on a machine that cannot convert it"
    return None


def _triton_refusal(x: Placed) -> str | None:
    from spiking.kernels.triton.runtime import interpreted

    if x.device.type != "cuda" and not interpreted():
        return f"the tensor is on {x.device}"
    return None


@cache
def _say_slow() -> None:
    warnings.warn(
        "llvmlite is not installed, so spiking neurons run step by step in plain PyTorch, about ten "
        "times slower; `pip install llvmlite` brings the fused CPU kernels",
        RuntimeWarning,
        stacklevel=4,
    )
