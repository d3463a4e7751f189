"""The two passes of a neuron behind a norm on CPU tensors, with a pooling behind it or none."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from spiking.kernels.cpu.arguments import Arguments
from spiking.kernels.cpu.codegen import LANES
from spiking.kernels.cpu.normed_writer import NormedWriter
from spiking.kernels.cpu.passes import SCRATCH_FLOATS
from spiking.kernels.cpu.runtime import DTYPES, can_stream, compiled, share, team_size
from spiking.kernels.cpu.view import View, padded
from spiking.kernels.cpu.windows import Windows
from spiking.kernels.cpu.writer import BLOCK
from spiking.kernels.layout import same_order
from spiking.kernels.rules.pooling import kept

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spiking.kernels.cpu.channel_writer import Shape
    from spiking.kernels.rules.base import Rule


@lru_cache(maxsize=1024)
def _neuron_kernel(
    rule: Rule, back: bool, stored: str, shape: Shape, still: bool, stream: bool, pooling: str | None
) -> tuple[int, Any]:
    writer = NormedWriter(rule, stored, shape, still, stream, pooling)
    return compiled(writer.backward if back else writer.forward)


class Pooling(NamedTuple):
    """Of 2 x 2 places, behind the neuron.

    Attributes:
        kind: ``"avg"`` or ``"max"``.
        windows: of one step.
    """

    kind: str
    windows: Windows


class Sequence(NamedTuple):
    """Numbers ``[T', N, C, ...]`` over time, T' = T or 1.

    Attributes:
        x: dense, each step contiguous or channels-last.
        view: of one step.
        steps: T.
        pooling: of the spikes.
    """

    x: Tensor
    view: View
    steps: int
    pooling: Pooling | None = None

    @property
    def still(self) -> bool:
        """Whether all steps share their numbers."""
        return len(self.x) < self.steps

    @property
    def numbers(self) -> int:
        """Those of all steps."""
        return self.steps * self.view.numbers

    @property
    def walk(self) -> View | Windows:
        """How kernels go through a step."""
        return self.view if self.pooling is None else self.pooling.windows

    @property
    def kind(self) -> str | None:
        """Of the pooling."""
        return None if self.pooling is None else self.pooling.kind

    def empty(self, steps: int) -> Tensor:
        """Room for ``steps`` steps in the same layout."""
        x = self.x
        batch = x.stride(1) if x.shape[1] > 1 else self.view.numbers  # a view may have any for one sample
        shape, strides = (steps, *x.shape[1:]), (self.view.numbers, batch, *x.stride()[2:])
        return torch.empty_strided(shape, strides, dtype=x.dtype)

    def room(self) -> Tensor:
        """Room for what leaves: spikes in the layout of x, or what is pooled of them."""
        if self.pooling is None:
            return self.empty(self.steps)
        _, n, c, h, w = self.x.shape
        rows = self.x.new_empty(self.steps, n, h // 2, w // 2, c)
        return rows.movedim(-1, 2)

    def describe(self, rule: Rule, values: Mapping[str, float], block: int) -> Arguments:
        """The arguments that both passes share."""
        arguments = Arguments()
        self.walk.describe(arguments, block)
        arguments.x, arguments.x_step = self.x.data_ptr(), 0 if self.still else self.view.numbers
        arguments.steps = self.steps
        arguments.params[: len(rule.names)] = [values[name] for name in rule.names]
        return arguments


def fire(rule: Rule, values: Mapping[str, float], sequence: Sequence, scale: Tensor, shift: Tensor) -> Tensor:
    """Spikes ``[T, N, C, ...]`` of a neuron at rest whose currents are ``scale * x + shift``; or pooled ones.

    Args:
        rule: the neuron; see `covers`.
        values: of all `Rule.names`.
        sequence: x.
        scale: ``[C]``.
        shift: ``[C]``.
    """
    walk = sequence.walk
    block = walk.block(BLOCK)
    arguments = sequence.describe(rule, values, block)
    tables = walk.table(scale, block), walk.table(shift, block)
    arguments.scale, arguments.shift = (table.data_ptr() for table in tables)
    out = sequence.room()
    arguments.out, arguments.out_step = out.data_ptr(), walk.numbers
    units = walk.units(block)
    stream = _streams(out, walk, block, out.numel())
    shape, still = walk.shape(block), sequence.still
    kernel = _neuron_kernel(rule, False, DTYPES[out.dtype], shape, still, stream, sequence.kind)
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
        g: gradient of what left.
        numbers: ``scale``, ``shift`` and ``centre``, each ``[C]``.
    """
    walk, x, n_kept = sequence.walk, sequence.x, kept(rule.n_saved, sequence.kind)
    fitting = SCRATCH_FLOATS // max(1, sequence.steps * n_kept) // LANES * LANES
    block = walk.block(max(LANES, min(BLOCK, fitting)))
    arguments = sequence.describe(rule, values, block)
    tables = {name: walk.table(one, block) for name, one in numbers.items()}
    for name, table in tables.items():
        setattr(arguments, name, table.data_ptr())
    g = _as_steps(g, sequence)
    gx = sequence.empty(len(x))
    arguments.g, arguments.g_step, arguments.gx = g.data_ptr(), g.stride(0), gx.data_ptr()
    arguments.out_step = sequence.view.numbers
    units = walk.units(block)
    threads = team_size(sequence.numbers, units)
    room = sequence.steps * n_kept * padded(block)
    scratch = torch.empty(threads * room)
    arguments.scratch, arguments.scratch_size = scratch.data_ptr(), 4 * room
    channel_sums = walk.sums(arguments, 2, threads, block)
    learnt = torch.zeros(threads, len(rule.learnt), BLOCK) if rule.learnt else None
    if learnt is not None:
        arguments.sums, arguments.sums_size = learnt.data_ptr(), 4 * len(rule.learnt) * BLOCK
    stream = _streams(gx, walk, block, gx.numel())
    shape, still = walk.shape(block), sequence.still
    kernel = _neuron_kernel(rule, True, DTYPES[x.dtype], shape, still, stream, sequence.kind)
    share(kernel, arguments, units, threads, 1)
    scalars = (
        {}
        if learnt is None
        else dict(zip(rule.learnt, learnt.sum((0, 2), dtype=torch.float64).unbind(), strict=True))
    )
    return CurrentGradients(gx, walk.gathered(channel_sums, block), scalars)


def _as_steps(g: Tensor, sequence: Sequence) -> Tensor:
    """``g [T, ...]`` as it is where each step lies as what left, else a copy that does."""
    if sequence.pooling is None:
        x = sequence.x
        if g.dtype is x.dtype and same_order(x.shape[1:], g.stride()[1:], x.stride()[1:]):
            return g
        return sequence.empty(sequence.steps).copy_(g)
    room = sequence.room()
    return g if same_order(room.shape, g.stride(), room.stride()) and g.dtype is room.dtype else room.copy_(g)


def covers(rule: Rule) -> bool:
    """Whether neurons of a rule can follow a norm here: those that share their parameters."""
    return not (rule.per_neuron or rule.conducts or rule.timed or rule.tabled)


def _streams(out: Tensor, walk: View | Windows, block: int, numbers: int) -> bool:
    """Whether results may bypass the caches: `can_stream`, and every unit starts at a whole vector."""
    if walk.shape(block).tail:
        return False
    return can_stream(DTYPES[out.dtype], numbers, walk.numbers, out)
