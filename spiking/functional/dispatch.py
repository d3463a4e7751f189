"""Which backend runs a neuron, and what it refuses."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from spiking import kernels
from spiking.arguments import shown
from spiking.budget import SMALL, require_memory
from spiking.surrogate import Surrogate

if TYPE_CHECKING:
    from collections.abc import Callable

    from spiking.kernels import Placed
    from spiking.kernels.launch import Launch

    Plan = Callable[..., Launch | None]

R = TypeVar("R")


class Place(NamedTuple):
    """What of a tensor decides on its backend."""

    dtype: torch.dtype
    device: torch.device


def planned(plan: Plan, x: Tensor, backend: str, keep: bool, *settings: Any) -> Launch | None:
    """``plan(Place, backend, keep, *settings)``, or its answer to an earlier call with equal arguments.

    A plan checks settings, chooses a backend and makes the launch; None where the plain reference runs. To do
    so at every call would cost a small layer a fifth of its time.
    """
    if torch.compiler.is_compiling():  # compilers trace the plan itself
        return plan(x, backend, keep, *settings)
    try:
        return _planned(plan, x.dtype, x.device, backend, keep, *settings)
    except TypeError:  # what has no hash, and the plan refuses by name
        return plan(x, backend, keep, *settings)


@lru_cache(maxsize=4096, typed=True)
def _planned(
    plan: Plan, dtype: torch.dtype, device: torch.device, backend: str, keep: bool, *settings: Any
) -> Launch | None:
    return plan(Place(dtype, device), backend, keep, *settings)


def made(cls: Callable[..., R], **settings: Any) -> R:
    """``cls(**settings)``, the object of an earlier call if there was one with equal settings.

    For frozen records of a few switches: making and comparing them anew costs a small layer a tenth of its
    time. Compilers trace the constructor alone.
    """
    if torch.compiler.is_compiling():
        return cls(**settings)
    try:
        record: R = _made(cls, **settings)
    except TypeError:  # what has no hash, and the constructor refuses by name
        return cls(**settings)
    return record


@lru_cache(maxsize=1024)
def _made(cls: Callable[..., R], **settings: Any) -> R:
    return cls(**settings)


def check(x: Tensor, *states: Tensor | None) -> None:
    """Raise an error that names what is wrong with currents or states."""
    if not isinstance(x, Tensor):
        raise TypeError(f"a neuron takes a tensor [T, B, ...], got {type(x).__name__}")
    if not x.dtype.is_floating_point:
        raise TypeError(f"a neuron takes floating-point currents, got {x.dtype}; use x.float()")
    shape = x.shape
    if not shape:
        raise ValueError("a neuron takes currents [T, B, ...], got a tensor without axes")
    if shape[0] == 0:
        raise ValueError(f"a neuron needs at least one time step, got [T, ...] = {tuple(x.shape)}")
    # the words cost a small layer a tenth of its time, and a traced size must not be compared
    if not torch.compiler.is_compiling() and (needed := x.numel() * x.element_size()) > SMALL:
        require_memory(
            f"the output [T, B, ...] = {tuple(x.shape)} of a neuron",
            needed,
            x.device,
            "use fewer time steps or a smaller batch, or run the sequence in chunks (spiking.streaming)",
        )
    for state in states:
        if state is None:
            continue
        if not (isinstance(state, Tensor) and state.dtype.is_floating_point):
            got = state.dtype if isinstance(state, Tensor) else type(state).__name__
            raise TypeError(f"the state must be a floating-point tensor [B, ...] or None, got {got}")
        if state.shape != shape[1:]:
            raise ValueError(
                f"the state is {tuple(state.shape)} but one step of the currents is {tuple(x.shape[1:])};"
                " start a new sequence for another batch size or map"
            )


def choose(x: Placed, backend: str, surrogate: Surrogate, has_triton: bool = True) -> str:
    """The backend that will run on tensors like ``x``: ``"reference"``, ``"cpu"`` or ``"triton"``.

    Raises:
        ValueError: unknown backend, or one asked for by name that cannot run this.
    """
    if backend not in kernels.BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; known: {', '.join(kernels.BACKENDS)}")
    if not isinstance(surrogate, Surrogate):
        raise TypeError(f"surrogate must be a Surrogate (spiking.get_surrogate), got {shown(surrogate)}")
    if backend == "reference" or torch.compiler.is_exporting():
        return "reference"
    by_device = {"cpu": "cpu", "cuda": "triton"}.get(x.device.type, "reference")
    engine = by_device if backend == "auto" else backend
    if engine == "reference":
        return engine
    reason = kernels.refusal(engine, x, surrogate, has_triton)
    if reason is None:
        return engine
    if backend != "auto":
        raise ValueError(f"backend {backend!r} cannot run this: {reason}; use backend='auto'")
    return "reference"
