"""Neurons whose step a user wrote, over ``[T, B, ...]``: which kernel runs them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spiking.functional.dispatch import check, choose, made
from spiking.kernels.cpu.arguments import MAX_PARAMS
from spiking.kernels.operands import Operands

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spiking.functional.launches import Kernel
    from spiking.kernels.launch import Launch
    from spiking.kernels.rules.program import Program
    from spiking.surrogate import Surrogate

STATES = 2  # that kernels carry from step to step


class UntraceableError(Exception):
    """A step does something that kernels cannot; the message says what."""


def written(
    x: Tensor,
    states: tuple[Tensor, ...] | None,
    *,
    find: Callable[[], Program],
    rests: tuple[float, ...],
    parameters: Mapping[str, Tensor],
    surrogate: Surrogate,
    backend: str = "auto",
    keep_state: bool = True,
) -> Kernel:
    """Operands and launch of the kernel of a written step, or None where its lines have to run.

    Args:
        x: currents ``[T, ...]``.
        states: before the first step, each ``[...]``; rest if missing.
        find: gives the program; called only where a kernel may run.
        rests: the states at rest.
        parameters: the learnt numbers of the program, by name.
        surrogate: whose slope stands for that of the step.
        backend: see `spiking.functional`.
        keep_state: whether the states after the last step are wanted.

    Raises:
        UntraceableError: a kernel cannot hold the step.
        ValueError: the backend is unknown, or was asked for by name and cannot run this.
    """
    check(x, *(states or ()))
    engine = choose(x, backend, surrogate)
    if engine == "reference" or torch.compiler.is_compiling():  # compilers see the lines themselves
        return None
    if not all(map(math.isfinite, rests)):
        raise ValueError(f"the states at rest must be finite, got {rests}")
    program = find()
    launch = made(_launch, program=program, rests=rests, surrogate=surrogate, engine=engine, keep=keep_state)
    names = program.parameters
    table = torch.stack([parameters[name].float().reshape(()) for name in names]) if names else None
    v, m = (*(states or ()), None, None)[:2]
    return Operands(v=v, m=m, table=table), launch


def refusal(states: int, parameters: int) -> str | None:
    """Why no kernel can hold so many states and learnt numbers, or None if one can."""
    if not 1 <= states <= STATES:
        return f"it has {states} states; kernels carry 1 or {STATES}"
    if parameters > MAX_PARAMS:
        return f"it has {parameters} learnt numbers; kernels take {MAX_PARAMS}"
    return None


def _launch(
    program: Program, rests: tuple[float, ...], surrogate: Surrogate, engine: str, keep: bool
) -> Launch:
    from spiking.kernels.launch import Launch
    from spiking.kernels.rules.written import Written

    return Launch(Written(surrogate, program.nodes, program.outputs, rests), engine, keep)
