"""Norms over everything but the channels on CPU tensors: statistics, the affine map, a neuron behind it.

A tensor ``x [N, C, ...]`` is contiguous or channels-last; `View.of` says whether it is.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from spiking.kernels.cpu.arguments import Arguments
from spiking.kernels.cpu.channel_writer import GROUP, NormedWriter, NormWriter, Shape
from spiking.kernels.cpu.codegen import LANES
from spiking.kernels.cpu.passes import SCRATCH_FLOATS
from spiking.kernels.cpu.runtime import DTYPES, can_stream, compiled, share, team_size
from spiking.kernels.cpu.writer import BLOCK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spiking.kernels.rules.base import Rule

SUMMED = 512  # numbers of a block whose sums are taken in groups of blocks: 32 KiB a group


class View(NamedTuple):
    """How a tensor lies in memory, as `spiking.kernels.cpu.channel_writer` has it.

    Attributes:
        lanes: whether channels lie side by side.
        outer: how often all channels come.
        channels: C.
        inner: numbers of a channel in a row.
    """

    lanes: bool
    outer: int
    channels: int
    inner: int

    @classmethod
    def of(cls, x: Tensor) -> View | None:
        """Of ``x [N, C, ...]``; None where kernels cannot walk it."""
        if x.dim() < 2 or x.numel() == 0:
            return None
        n, channels = x.shape[:2]
        inner = x.numel() // (n * channels)
        if inner == 1 or not x.is_contiguous():
            last = inner == 1 and x.is_contiguous()
            if x.dim() == 4 and not last:
                last = x.is_contiguous(memory_format=torch.channels_last)
            return cls(True, n * inner, channels, 1) if last and channels <= BLOCK else None
        return cls(False, n, channels, inner)

    @property
    def numbers(self) -> int:
        """How many in all."""
        return self.outer * self.channels * self.inner

    @property
    def per_channel(self) -> int:
        """How many of each channel."""
        return self.outer * self.inner

    def block(self, limit: int) -> int:
        """Numbers of a block, about ``limit`` and at most `BLOCK`; in lanes a whole number of groups of C."""
        if not self.lanes:
            return min(limit, -(-self.inner // LANES) * LANES)
        groups = max(1, min(self.outer, limit // self.channels))
        even = LANES // math.gcd(self.channels, LANES)  # so many fill whole vectors
        return self.channels * (groups // even * even or groups)

    def shape(self, block: int) -> Shape:
        """What the kernels for such blocks know."""
        ends = (block, self.numbers) if self.lanes else (self.inner,)
        return Shape(self.lanes, tail=any(end % LANES for end in ends))

    def units(self, block: int) -> int:
        """How many units of work a kernel has."""
        if self.lanes:
            return -(-self.numbers // block)
        return self.outer * self.channels * -(-self.inner // block)

    def table(self, values: Tensor, block: int) -> Tensor:
        """Numbers ``[C]`` as kernels take them: float32, in lanes for every place of a block."""
        values = values.float()
        if not self.lanes:
            return values.contiguous()
        wide = values.new_zeros(_padded(block))
        wide[:block].view(-1, self.channels).copy_(values)
        return wide

    def describe(self, arguments: Arguments, block: int) -> None:
        """Fills in the sizes of one step."""
        arguments.neurons, arguments.block, arguments.inner = self.numbers, block, self.inner
        arguments.pieces = -(-self.inner // block)
        arguments.channels = _padded(block) if self.lanes else self.channels

    def sums(self, arguments: Arguments, kinds: int, threads: int, block: int) -> Tensor:
        """Zeros for sums over channels, ``[threads, kinds, width]`` in float64, made known to the kernel."""
        width = _padded(block) if self.lanes else self.channels
        sums = torch.zeros(threads, kinds, width, dtype=torch.float64)
        arguments.channel_sums, arguments.channel_sums_size = sums.data_ptr(), 8 * kinds * width
        return sums

    def gathered(self, sums: Tensor, block: int) -> Tensor:
        """What `sums` has received, ``[kinds, C]``."""
        total = sums.sum(0) if len(sums) > 1 else sums[0]
        if not self.lanes or block == self.channels:
            return total[:, : self.channels]
        return total[:, :block].reshape(len(total), -1, self.channels).sum(1)


def _padded(block: int) -> int:
    return -(-block // LANES) * LANES


# ---------------------------------------------------------------- a norm alone


@lru_cache(maxsize=256)
def _norm_kernel(kind: str, stored: str, shape: Shape, stream: bool) -> tuple[int, Any]:
    return compiled(getattr(NormWriter(stored, shape, stream), kind))


def statistics(x: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, ``[C]`` in float64."""
    total, between, within = _reduced("statistics", 3, view, x)
    mean = total / view.per_channel
    apart = between - total * mean  # of the means of units, from the mean of all
    return mean, ((within + apart) / view.per_channel).clamp_min_(0.0)


def reduction(g: Tensor, x: Tensor, view: View, centre: Tensor) -> Tensor:
    """Sums over each channel of ``g`` and of ``g * (x - centre)``, ``[2, C]`` in float64."""
    return _reduced("reduction", 2, view, x, g, centre)


def _reduced(
    kind: str, kinds: int, view: View, x: Tensor, g: Tensor | None = None, centre: Tensor | None = None
) -> Tensor:
    arguments = Arguments()
    block = view.block(SUMMED if view.lanes else BLOCK)
    view.describe(arguments, block)
    units = -(-(view.numbers // block) // GROUP) if view.lanes else view.units(block)
    threads = team_size(view.numbers, units)
    sums = view.sums(arguments, kinds, threads, block)
    held = None if centre is None else view.table(centre, block)
    arguments.x = x.data_ptr()
    if g is not None and held is not None:
        arguments.g, arguments.centre = g.data_ptr(), held.data_ptr()
    kernel = _norm_kernel(kind, DTYPES[x.dtype], view.shape(block), False)
    share(kernel, arguments, units, threads, 1)
    rest = view.numbers % block if view.lanes else 0
    if rest:  # the last groups of C, as one short block
        past = (view.numbers - rest) * x.element_size()
        arguments.x += past
        arguments.g += past
        arguments.neurons = arguments.block = rest
        kernel[1](arguments, 0, 1, 0)
    return view.gathered(sums, block)


def affine(x: Tensor, view: View, scale: Tensor, shift: Tensor) -> Tensor:
    """``scale * x + shift`` in the layout of ``x``; ``scale`` and ``shift`` are ``[C]``."""
    out = torch.empty_like(x)
    arguments = Arguments()
    arguments.x, arguments.out = x.data_ptr(), out.data_ptr()
    _mapped("affine", view, arguments, out, {"scale": scale, "shift": shift})
    return out


def gradient(
    g: Tensor, x: Tensor, view: View, numbers: Mapping[str, Tensor], out: Tensor | None = None
) -> Tensor:
    """``scale * g + lift - slope * (x - centre)``.

    Args:
        g: ``[N, C, ...]`` in the layout of x.
        x: ``[N, C, ...]``.
        view: of both.
        numbers: ``scale``, ``lift``, ``slope`` and ``centre``, each ``[C]``.
        out: where it is put, maybe ``g`` itself; a new tensor if None.
    """
    out = torch.empty_like(x) if out is None else out
    arguments = Arguments()
    arguments.x, arguments.g, arguments.gx = x.data_ptr(), g.data_ptr(), out.data_ptr()
    _mapped("gradient", view, arguments, out, numbers)
    return out


def _mapped(kind: str, view: View, arguments: Arguments, out: Tensor, numbers: Mapping[str, Tensor]) -> None:
    block = view.block(BLOCK)
    view.describe(arguments, block)
    tables = {name: view.table(values, block) for name, values in numbers.items()}
    for name, table in tables.items():
        setattr(arguments, name, table.data_ptr())
    units = view.units(block)
    stream = _can_stream(out, view, block, view.numbers) and arguments.g != arguments.gx
    kernel = _norm_kernel(kind, DTYPES[out.dtype], view.shape(block), stream)
    share(kernel, arguments, units, team_size(view.numbers, units), 1)


def _can_stream(out: Tensor, view: View, block: int, numbers: int) -> bool:
    """Whether results may bypass the caches: `can_stream`, and every unit starts at a whole vector."""
    if (block if view.lanes else view.inner) % LANES:
        return False
    return can_stream(DTYPES[out.dtype], numbers, view.numbers, out)


# ---------------------------------------------------------------- with a neuron


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
    stream = _can_stream(out, view, block, sequence.numbers)
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
    kept = sequence.steps * rule.n_saved * _padded(block)
    scratch = torch.empty(threads * kept)
    arguments.scratch, arguments.scratch_size = scratch.data_ptr(), 4 * kept
    channel_sums = view.sums(arguments, 2, threads, block)
    learnt = torch.zeros(threads, len(rule.learnt), BLOCK) if rule.learnt else None
    if learnt is not None:
        arguments.sums, arguments.sums_size = learnt.data_ptr(), 4 * len(rule.learnt) * BLOCK
    stream = _can_stream(gx, view, block, gx.numel())
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
    wanted = sequence.x.stride()[1:]
    if g.dtype is sequence.x.dtype and all(
        n == 1 or a == b for n, a, b in zip(g.shape[1:], g.stride()[1:], wanted, strict=True)
    ):
        return g
    return sequence.empty(sequence.steps).copy_(g)


def covers(rule: Rule) -> bool:
    """Whether neurons of a rule can follow a norm here: those that share their parameters."""
    return not (rule.per_neuron or rule.conducts or rule.timed)
