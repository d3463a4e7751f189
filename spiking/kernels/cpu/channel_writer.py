"""The assembly of the kernels that know channels: a norm over everything else, alone or before a neuron.

A step of a tensor is seen in one of two ways. In *rows* all numbers of a row of ``inner`` numbers belong
to one channel, as in contiguous maps ``[B, C, H, W]``; long rows are cut into ``pieces`` of ``block``.
In *lanes* the channels lie side by side, as in channels-last maps; then a block is a whole number of groups
of C numbers, and what belongs to channels comes as a table with one entry for each place of a block. A unit
of work is one piece of a row, or one block. Channels-last maps are also seen in *windows* of 2 x 2 places,
for poolings: a unit then is a few of them side by side, and tables have C entries.

Sums over a channel are taken in float32 over a unit, and in double precision over units.
"""

from __future__ import annotations

import contextlib
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from spiking.kernels.cpu import codegen
from spiking.kernels.cpu.codegen import LANES
from spiking.kernels.cpu.writer import Frame
from spiking.kernels.rules.expressions import Vec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from spiking.kernels.cpu.codegen import Code


class Unit(NamedTuple):
    """One unit of work.

    Attributes:
        number: how many came before it.
        first: index of its first number in a step.
        length: how many numbers it has; how many windows.
        channel: to which all belong, None in lanes.
        shared: what belongs to that channel, by the name of the argument.
        pooled: index of its first number in a pooled step.
    """

    number: str
    first: str
    length: str
    channel: str | None = None
    shared: Mapping[str, Vec] = MappingProxyType({})
    pooled: str = ""


class Shape(NamedTuple):
    """What a kernel knows of the layout when it is written.

    Attributes:
        lanes: whether channels lie side by side.
        tail: whether units may end within a vector; where none does, half of the code goes.
        windows: whether places come in windows of 2 x 2.
    """

    lanes: bool
    tail: bool
    windows: bool = False


class Channels(Frame):
    """What kernels with channels share.

    Attributes:
        shape: which of the two ways.
        channel_sums: address of this worker's sums.
    """

    shape: Shape
    channel_sums: str

    def see_channels(self, shape: Shape) -> None:
        """Set which of the two ways; part of making a writer."""
        self.shape = shape
        own = self.c.scalar(f"mul i64 %worker, {self.arg['channel_sums_size']}")
        self.channel_sums = self.c.at(self.arg["channel_sums"], "i8", own)

    @contextlib.contextmanager
    def units(self, *shared: str) -> Iterator[Unit]:
        """The loop over the units from ``%lo`` to ``%hi``; ``shared`` names what has a number a channel."""
        c, arg = self.c, self.arg
        with c.loop("%lo", "%hi") as u:
            if self.shape.windows:
                yield self._window_unit(u)
            elif self.shape.lanes:
                first = c.scalar(f"mul i64 {u}, {arg['block']}")
                left = c.scalar(f"sub i64 {arg['neurons']}, {first}")
                yield Unit(u, first, self._min(left, arg["block"]))
            else:
                row = c.scalar(f"sdiv i64 {u}, {arg['pieces']}")
                piece = c.scalar(f"srem i64 {u}, {arg['pieces']}")
                start = c.scalar(f"mul i64 {piece}, {arg['block']}")
                left = c.scalar(f"sub i64 {arg['inner']}, {start}")
                first = c.scalar(f"add i64 {c.scalar(f'mul i64 {row}, ' + arg['inner'])}, {start}")
                channel = c.scalar(f"srem i64 {row}, {arg['channels']}")
                given = {name: self._one(name, channel) for name in shared}
                yield Unit(u, first, self._min(left, arg["block"]), channel, given)

    def _window_unit(self, u: str) -> Unit:
        """A few windows of a row of windows; two rows of places lie behind each other in memory."""
        c, arg = self.c, self.arg
        row = c.scalar(f"sdiv i64 {u}, {arg['pieces']}")
        piece = c.scalar(f"srem i64 {u}, {arg['pieces']}")
        start = c.scalar(f"mul i64 {piece}, {arg['windows']}")
        left = c.scalar(f"sub i64 {arg['across']}, {start}")
        before = self._plus(c.scalar(f"mul i64 {row}, {arg['across']}"), start)
        pooled = c.scalar(f"mul i64 {before}, {arg['inner']}")
        above = c.scalar(f"mul i64 {c.scalar(f'mul i64 {row}, ' + arg['across'])}, {arg['inner']}")
        aside = c.scalar(f"mul i64 {start}, {arg['inner']}")
        first = self._plus(c.scalar(f"shl i64 {above}, 2"), c.scalar(f"shl i64 {aside}, 1"))
        return Unit(u, first, self._min(left, arg["windows"]), pooled=pooled)

    def _one(self, name: str, channel: str) -> Vec:
        c = self.c
        return c.broadcast(c.scalar(f"load float, ptr {c.at(self.arg[name], 'float', channel)}"))

    def each(self, length: str, body: Callable[[str], None]) -> None:
        """``body`` for every vector of a unit: whole ones, then a masked one for what is left."""
        c = self.c
        if not self.shape.tail:
            with c.loop("0", length, LANES) as i:
                body(i)
            return
        whole = c.scalar(f"and i64 {length}, {-LANES}")
        rest = c.scalar(f"sub i64 {length}, {whole}")
        with c.loop("0", whole, LANES) as i:
            body(i)
        with c.when(c.scalar(f"icmp sgt i64 {rest}, 0")):
            c.masked, c.lanes = True, c.masked_lanes(rest)
            body(whole)
            c.masked = False

    def of(self, unit: Unit, name: str, i: str) -> Vec:
        """What belongs to the channels of the vector at place ``i`` of the unit."""
        return self.c.load(self.arg[name], i) if unit.channel is None else unit.shared[name]

    def add_to(self, channel: str, n: int, value: str) -> None:
        """Adds a double to the n-th sum of a channel."""
        self.c.add_double(self.channel_sums, self.sum_place(n, channel), value)

    def sum_place(self, n: int, i: str) -> str:
        """Index of the n-th sum of a channel, or of a place of the table."""
        return self._plus(self.c.scalar(f"mul i64 {self.arg['channels']}, {n}"), i)


class Sum:
    """A vector in a stack slot, which LLVM keeps in a register."""

    def __init__(self, c: Code) -> None:
        self.c, self.slot = c, c.scalar(f"alloca {codegen.F}, align 64")
        c.raw(f"store {codegen.F} zeroinitializer, ptr {self.slot}, align 64")

    def add(self, value: Vec) -> None:
        """Adds the lanes that exist."""
        self.c.raw(
            f"store {codegen.F} {(self.value() + self.c.existing(value)).name}, ptr {self.slot}, align 64"
        )

    def value(self) -> Vec:
        """What has been added up."""
        return self.c.line(f"load {codegen.F}, ptr {self.slot}, align 64")
