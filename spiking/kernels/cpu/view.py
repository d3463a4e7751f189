"""How kernels that know channels see a tensor ``x [N, C, ...]``, contiguous or channels-last."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from spiking.kernels.cpu.channel_writer import Shape
from spiking.kernels.cpu.codegen import LANES
from spiking.kernels.cpu.writer import BLOCK

if TYPE_CHECKING:
    from spiking.kernels.cpu.arguments import Arguments


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
        wide = values.new_zeros(padded(block))
        wide[:block].view(-1, self.channels).copy_(values)
        return wide

    def describe(self, arguments: Arguments, block: int) -> None:
        """Fills in the sizes of one step."""
        arguments.neurons, arguments.block, arguments.inner = self.numbers, block, self.inner
        arguments.pieces = -(-self.inner // block)
        arguments.channels = padded(block) if self.lanes else self.channels

    def sums(self, arguments: Arguments, kinds: int, threads: int, block: int) -> Tensor:
        """Zeros for sums over channels, ``[threads, kinds, width]`` in float64, made known to the kernel."""
        return zeros_for_sums(arguments, kinds, threads, padded(block) if self.lanes else self.channels)

    def gathered(self, sums: Tensor, block: int) -> Tensor:
        """What `sums` has received, ``[kinds, C]``."""
        total = sums.sum(0) if len(sums) > 1 else sums[0]
        if not self.lanes or block == self.channels:
            return total[:, : self.channels]
        return total[:, :block].reshape(len(total), -1, self.channels).sum(1)


def zeros_for_sums(arguments: Arguments, kinds: int, threads: int, width: int) -> Tensor:
    """``[threads, kinds, width]`` in float64, made known to the kernel."""
    sums = torch.zeros(threads, kinds, width, dtype=torch.float64)
    arguments.channel_sums, arguments.channel_sums_size = sums.data_ptr(), 8 * kinds * width
    return sums


def padded(block: int) -> int:
    """The numbers of a block, rounded up to whole vectors."""
    return -(-block // LANES) * LANES
