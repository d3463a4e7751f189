"""How kernels with a pooling see channels-last maps: in windows of 2 x 2 places."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from spiking.kernels.cpu.channel_writer import Shape
from spiking.kernels.cpu.codegen import LANES
from spiking.kernels.cpu.view import View, padded, zeros_for_sums
from spiking.kernels.cpu.writer import BLOCK
from spiking.kernels.rules.pooling import WINDOW, in_windows

if TYPE_CHECKING:
    from torch import Tensor

    from spiking.kernels.cpu.arguments import Arguments


class Windows(NamedTuple):
    """One step of maps ``[N, C, H, W]`` of even sides, as `spiking.kernels.cpu.channel_writer` has it.

    It answers what `View` answers; a block is a few windows side by side, each channel's four numbers apart.

    Attributes:
        channels: C.
        rows: of windows, N * H / 2.
        across: windows of a row, W / 2.
    """

    channels: int
    rows: int
    across: int

    @classmethod
    def of(cls, x: Tensor, view: View) -> Windows | None:
        """Of ``x [N, C, H, W]``; None where it does not come in windows."""
        if not view.lanes or not in_windows(x.shape):
            return None
        if not x.is_contiguous(memory_format=torch.channels_last):
            return None
        n, channels, height, width = x.shape
        return cls(channels, n * (height // 2), width // 2) if WINDOW * padded(channels) <= BLOCK else None

    @property
    def numbers(self) -> int:
        """How many leave a step."""
        return self.rows * self.across * self.channels

    def _windows(self, block: int) -> int:
        return block // (WINDOW * padded(self.channels))

    def block(self, limit: int) -> int:
        """Room of a block in the areas of a kernel, about ``limit`` and at most `BLOCK` numbers."""
        window = WINDOW * padded(self.channels)
        return window * max(1, min(self.across, limit // window))

    def shape(self, block: int) -> Shape:
        """What the kernels for such blocks know."""
        return Shape(True, tail=bool(self.channels % LANES), windows=True)

    def units(self, block: int) -> int:
        """How many units of work a kernel has."""
        return self.rows * -(-self.across // self._windows(block))

    def table(self, values: Tensor, block: int) -> Tensor:
        """Numbers ``[C]`` as kernels take them: float32, in whole vectors."""
        wide = torch.zeros(padded(self.channels))
        wide[: self.channels].copy_(values)
        return wide

    def describe(self, arguments: Arguments, block: int) -> None:
        """Fills in the sizes of one step."""
        arguments.block, arguments.windows = block, self._windows(block)
        arguments.across, arguments.inner = self.across, self.channels
        arguments.pieces = -(-self.across // arguments.windows)
        arguments.channels = padded(self.channels)

    def sums(self, arguments: Arguments, kinds: int, threads: int, block: int) -> Tensor:
        """Zeros for sums over channels, ``[threads, kinds, width]`` in float64, made known to the kernel."""
        return zeros_for_sums(arguments, kinds, threads, padded(self.channels))

    def gathered(self, sums: Tensor, block: int) -> Tensor:
        """What `sums` has received, ``[kinds, C]``."""
        return sums.sum(0)[:, : self.channels]
