"""The two passes of a neuron behind a norm on CPU tensors."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from spiking.kernels.cpu.arguments import Arguments
from spiking.kernels.cpu.codegen import LANES
from spiking.kernels.cpu.normed_writer import NormedWriter
from spiking.kernels.cpu.passes import SCRATCH_FLOATS
from spiking.kernels.cpu.runtime import DTYPES, compiled, share, team_size
from spiking.kernels.cpu.view import View, padded, streams
from spiking.kernels.cpu.writer import BLOCK
from spiking.kernels.layout import same_order

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spiking.kernels.cpu.channel_writer import Shape
    from spiking.kernels.rules.base import Rule


@lru_cache(maxsize=1024)
def _neuron_kernel(
    rule: Rule, back: bool, stored: str, shape: Shape, still: bool, stream: bool
) -> tuple[int, Any]:
    writer = NormedWriter(rule, stored, shape, still, stream)
    return compiled(writer.backward if back else writer.forward)


class Sequence(NamedTuple):
    """Numbers ``[T', N, C, ...]`` over time, T' = T or 1.

    Attributes:
        x: dense, each step contiguous or channels-last.
        view: of one step.
        steps: T.
    """

    x: Tensor
    view: View
    steps: int

    @property
    def still(self) -> bool:
        """Whether all steps share their numbers."""
        return len(self.x) < self.steps

    @property
    def numbers(self) -> int:
        """Those of all steps."""
        return self.steps * self.view.numbers

    def empty(self, steps: int) -> Tensor:
        """Room for ``steps`` steps in the same layout."""
        x = self.x
        batch = x.stride(1) if x.shape[1] > 1 else self.view.numbers  # a view may have any for one sample
        shape, strides = (steps, *x.shape[1:]), (self.view.numbers, batch, *x.stride()[2:])
        return torch.empty_strided(shape, strides, dtype=x.dtype)

    def describe(self, rule: Rule, values: Mapping[str, float], block: int) -> Arguments:
        """The arguments that both passes share."""
        arguments = Arguments()
        self.view.describe(arguments, block)
        arguments.x, arguments.x_step = self.x.data_ptr(), 0 if self.still else self.view.numbers
        arguments.steps, arguments.out_step = self.steps, self.view.numbers
        arguments.params[: len(rule.names)] = [values[name] for name in rule.names]
        return arguments


def fire(rule: Rule, values: Mapping[str, float], sequence: Sequence, scale: Tensor, shift: Tensor) -> Tensor:
    """Spikes ``[T, N, C, ...]`` of a neuron at rest whose currents are ``scale * x + shift``.

    Args:
        rule: the neuron; see `covers`.
        values: of all `Rule.names`.
        sequence: x.
        scale: ``[C]``.
        shift: ``[C]``.
    """
    view = sequence.view
    block = view.block(BLOCK)
    arguments = sequence.describe(rule, values, block)
    tables = view.table(scale, block), view.table(shift, block)
    arguments.scale, arguments.shift = (table.data_ptr() for table in tables)
    out = sequence.empty(sequence.steps)
    arguments.out = out.data_ptr()
    units = view.units(block)
    stream = streams(out, view, block, sequence.numbers)
    kernel = _neuron_kernel(rule, False, DTYPES[out.dtype], view.shape(block), sequence.still, stream)
    share(kernel, arguments, units, team_size(sequence.numbers, units), 1)
    return out


class CurrentGradients(NamedTuple):
    """What goes back through a neuron to its norm.

    Attributes:
        current: gradient of ``scale * x + shift``, ``[T', N, C, ...]``.
        sums: over each channel, of that gradient and of its products with ``x - centre``; ``[2, C]``.
        scalars: gradients of the neuron's parameters, by name, in float64.
    """

    current: Tensor
    sums: Tensor
    scalars: Mapping[str, Tensor]


def fire_backward(
    rule: Rule, values: Mapping[str, float], sequence: Sequence, g: Tensor, numbers: Mapping[str, Tensor]
) -> CurrentGradients:
    """The way back of `fire`.

    Args:
        rule: as in `fire`.
        values: as in `fire`.
        sequence: as in `fire`.
        g: gradient of the spikes ``[T, N, C, ...]``.
        numbers: ``scale``, ``shift`` and ``centre``, each ``[C]``.
    """
    view, x = sequence.view, sequence.x
    fitting = SCRATCH_FLOATS // max(1, sequence.steps * rule.n_saved) // LANES * LANES
    block = view.block(max(LANES, min(BLOCK, fitting)))
    arguments = sequence.describe(rule, values, block)
    tables = {name: view.table(one, block) for name, one in numbers.items()}
    for name, table in tables.items():
        setattr(arguments, name, table.data_ptr())
    g = _as_steps(g, sequence)
    gx = sequence.empty(len(x))
    arguments.g, arguments.g_step, arguments.gx = g.data_ptr(), g.stride(0), gx.data_ptr()
    units = view.units(block)
    threads = team_size(sequence.numbers, units)
    kept = sequence.steps * rule.n_saved * padded(block)
    scratch = torch.empty(threads * kept)
    arguments.scratch, arguments.scratch_size = scratch.data_ptr(), 4 * kept
    channel_sums = view.sums(arguments, 2, threads, block)
    learnt = torch.zeros(threads, len(rule.learnt), BLOCK) if rule.learnt else None
    if learnt is not None:
        arguments.sums, arguments.sums_size = learnt.data_ptr(), 4 * len(rule.learnt) * BLOCK
    stream = streams(gx, view, block, gx.numel())
    kernel = _neuron_kernel(rule, True, DTYPES[x.dtype], view.shape(block), sequence.still, stream)
    share(kernel, arguments, units, threads, 1)
    scalars = (
        {}
        if learnt is None
        else dict(zip(rule.learnt, learnt.sum((0, 2), dtype=torch.float64).unbind(), strict=True))
    )
    return CurrentGradients(gx, view.gathered(channel_sums, block), scalars)


def _as_steps(g: Tensor, sequence: Sequence) -> Tensor:
    """``g [T, ...]`` as it is where each step lies as those of x do, else a copy that does."""
    x = sequence.x
    if g.dtype is x.dtype and same_order(x.shape[1:], g.stride()[1:], x.stride()[1:]):
        return g
    return sequence.empty(sequence.steps).copy_(g)


def covers(rule: Rule) -> bool:
    """Whether neurons of a rule can follow a norm here: those that share their parameters."""
    return not (rule.per_neuron or rule.conducts or rule.timed or rule.tabled)
