"""The two passes of a rule on CPU tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from spiking.kernels.cpu.arguments import Arguments
from spiking.kernels.cpu.runtime import DTYPES, can_stream, run, threads_for
from spiking.kernels.cpu.writer import BLOCK, UNIT
from spiking.kernels.layout import in_order_of, like, prepare, same_order
from spiking.kernels.operands import NOTHING, Operands

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spiking.kernels.rules.base import Rule

SCRATCH_FLOATS = 64 * 1024  # what one block keeps for the way back: 256 KiB, a quarter of a usual L2


@dataclass(frozen=True)
class ParameterGradients:
    """Gradients of what neurons share or have of their own.

    Attributes:
        scalars: by name, in float64, summed over all neurons and steps.
        coefficients: ``[n, P]``, in the order of `Rule.arrays`.
        conductance: ``[T, P]``.
    """

    scalars: Mapping[str, Tensor] = field(default_factory=dict)
    coefficients: Tensor | None = None
    conductance: Tensor | None = None


NO_GRADIENTS = ParameterGradients()


def forward(
    rule: Rule,
    values: Mapping[str, float],
    x: Tensor,
    operands: Operands = NOTHING,
    keep: bool = True,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Spikes ``[T, ...]`` and, if ``keep``, the states after the last step (float32).

    Args:
        rule: the neuron.
        values: of all `Rule.names`.
        x: currents ``[T, ...]``.
        operands: states before the first step; parameters of single neurons and the conductance.
        keep: whether the states after the last step are wanted.
    """
    x = prepare(x, rule.per_neuron)
    out = like(x, True, x.dtype)
    end0, end1 = _states(x, keep and rule.n_states > 0, keep and rule.n_states > 1)
    size = _Size.of(rule, x)
    if size.numbers:
        arguments = Arguments()
        held = _describe(arguments, rule, values, x, size, operands)
        arguments.out, arguments.block = out.data_ptr(), BLOCK
        _point(arguments, end0=end0, end1=end1)
        stored = DTYPES[x.dtype]
        stream = can_stream(stored, size.numbers, size.per_step, out)
        run(rule, False, stored, stream, arguments, threads_for(size.numbers, size.neurons))
        del held  # what the addresses point to had to live until here
    return out, tuple(end for end in (end0, end1) if end is not None)


def backward(
    rule: Rule,
    values: Mapping[str, float],
    x: Tensor,
    operands: Operands = NOTHING,
    g: Tensor | None = None,
    g_ends: tuple[Tensor | None, ...] = (),
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None], ParameterGradients]:
    """Gradients of the currents, of the given starting states, and of the parameters.

    Args:
        rule: as in the forward pass, and so for `values`, `x` and `operands`.
        values: see `forward`.
        x: see `forward`.
        operands: see `forward`.
        g: gradient of the spikes ``[T, ...]``, None for zero.
        g_ends: gradients of the last states, None for zero.

    Returns:
        Gradient of ``x`` in its memory order; gradients of the two states, None where none was given; those
        of the parameters.
    """
    x = prepare(x, rule.per_neuron)
    gx = like(x, True, x.dtype)
    gv, gm = _states(x, operands.v is not None, operands.m is not None)
    size = _Size.of(rule, x)
    threads = threads_for(size.numbers, size.neurons)
    learnt = rule.learnt
    arrays = _array_gradients(operands) if learnt and rule.per_neuron else NO_GRADIENTS
    scalars = () if rule.per_neuron else learnt
    sums = torch.zeros(threads, len(scalars), BLOCK) if scalars else None
    if size.numbers:
        block = backward_block(size.steps, rule.n_saved)
        scratch_floats = size.steps * rule.n_saved * block
        scratch = torch.empty(threads * scratch_floats)
        arguments = Arguments()
        held = _describe(arguments, rule, values, x, size, operands)
        held += _describe_gradients(arguments, x, g, g_ends)
        arguments.gx, arguments.scratch, arguments.block = gx.data_ptr(), scratch.data_ptr(), block
        arguments.scratch_size, arguments.sums_size = 4 * scratch_floats, 4 * len(scalars) * BLOCK
        _point(arguments, gstart0=gv, gstart1=gm, sums=sums)
        _point(arguments, grad_coefficients=arrays.coefficients, grad_conductance=arrays.conductance)
        stored = DTYPES[x.dtype]
        stream = can_stream(stored, size.numbers, size.per_step, gx)
        run(rule, True, stored, stream, arguments, threads)
        del held  # as in `forward`
    if sums is not None:
        totals = sums.sum((0, 2), dtype=torch.float64).unbind()
        return gx, (gv, gm), ParameterGradients(dict(zip(scalars, totals, strict=True)))
    return gx, (gv, gm), arrays


class _Size(NamedTuple):
    """Extent of the currents: time steps, numbers in all and in a step, and neurons.

    Where neurons have parameters of their own, their number is that of one sample, and the batch repeats it.
    """

    steps: int
    numbers: int
    per_step: int
    neurons: int

    @classmethod
    def of(cls, rule: Rule, x: Tensor) -> _Size:
        """Of ``x [T, ...]``."""
        steps, *inner = x.shape
        numbers = x.numel()
        per_step = numbers // steps if steps else 0
        samples = max(1, inner[0]) if rule.per_neuron else 1
        return cls(steps, numbers, per_step, per_step // samples)


def _states(x: Tensor, first: bool, second: bool) -> tuple[Tensor | None, Tensor | None]:
    """Room for the states that are wanted."""
    return (
        like(x, False, torch.float32) if first else None,
        like(x, False, torch.float32) if second else None,
    )


def _point(arguments: Arguments, **tensors: Tensor | None) -> None:
    """Sets the addresses of those tensors that are there."""
    for name, tensor in tensors.items():
        if tensor is not None:
            setattr(arguments, name, tensor.data_ptr())


def _describe(
    arguments: Arguments,
    rule: Rule,
    values: Mapping[str, float],
    x: Tensor,
    size: _Size,
    operands: Operands,
) -> list[Tensor]:
    """Fills in what both passes are given; hands back the tensors that must outlive the call."""
    arguments.x, arguments.x_step, arguments.out_step = x.data_ptr(), x.stride(0), size.per_step
    arguments.steps, arguments.neurons = size.steps, size.neurons
    arguments.repeats = size.per_step // size.neurons
    names = rule.names
    arguments.params[: len(names)] = [values[name] for name in names]
    held = []
    if operands.v is not None:
        held.append(in_order_of(x, operands.v))
        arguments.start0 = held[-1].data_ptr()
    if operands.m is not None:
        held.append(in_order_of(x, operands.m))
        arguments.start1 = held[-1].data_ptr()
    if operands.coefficients is not None:  # compiled programs may hand over expanded views
        held.append(operands.coefficients.contiguous())
        arguments.coefficients = held[-1].data_ptr()
    if operands.conductance is not None:
        held.append(operands.conductance.contiguous())
        arguments.conductance = held[-1].data_ptr()
    return held


def _describe_gradients(
    arguments: Arguments, x: Tensor, g: Tensor | None, g_ends: tuple[Tensor | None, ...]
) -> list[Tensor]:
    """Fills in the gradients of the results; hands back what must outlive the call."""
    if g is None:
        g = x.new_zeros(()).expand(x.shape)
    if g.dtype != x.dtype or not same_order(x.shape[1:], g.stride()[1:], x.stride()[1:]):
        g = like(x, True, x.dtype).copy_(g)
    arguments.g, arguments.g_step = g.data_ptr(), g.stride(0)
    held = [g]
    for name, g_end in zip(("gend0", "gend1"), g_ends, strict=False):
        if g_end is not None:
            held.append(in_order_of(x, g_end))
            setattr(arguments, name, held[-1].data_ptr())
    return held


def _array_gradients(operands: Operands) -> ParameterGradients:
    assert operands.coefficients is not None
    assert operands.conductance is not None
    return ParameterGradients(
        coefficients=torch.zeros_like(operands.coefficients, memory_format=torch.contiguous_format),
        conductance=torch.zeros_like(operands.conductance, memory_format=torch.contiguous_format),
    )


def backward_block(steps: int, kept: int) -> int:
    """Neurons of a block on the way back: as many as leave what they keep in the cache."""
    fitting = SCRATCH_FLOATS // max(1, steps * kept)
    return max(UNIT, min(BLOCK, fitting // UNIT * UNIT))
