"""Fused multi-step kernels behind `spiking.functional`.

``codegen`` writes and compiles vector code, ``rules`` holds the equations, ``writer`` puts loops around
them, ``cpu`` runs the result, ``ops`` makes it differentiable; ``triton`` does the same job on CUDA.
Nothing here is imported before a fast kernel is first wanted.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache

BACKENDS = ("auto", "reference", "cpu", "triton")


@cache
def cpu_available() -> bool:
    """Whether the CPU kernels can run here; says so once if they cannot."""
    if importlib.util.find_spec("llvmlite") is not None:
        return True
    warnings.warn(
        "llvmlite is not installed, so spiking neurons run step by step in plain PyTorch, about ten "
        "times slower; `pip install llvmlite` brings the fused CPU kernels",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


@cache
def triton_available() -> bool:
    """Whether Triton can be imported."""
    return importlib.util.find_spec("triton") is not None
