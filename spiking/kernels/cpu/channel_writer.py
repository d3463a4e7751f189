"""The assembly of the kernels that know channels: a norm over everything else, alone or before a neuron.

A step of a tensor is seen in one of two ways. In *rows* all numbers of a row of ``inner`` numbers belong
to one channel, as in contiguous maps ``[B, C, H, W]``; long rows are cut into ``pieces`` of ``block``.
In *lanes* the channels lie side by side, as in channels-last maps; then a block is a whole number of groups
of C numbers, and what belongs to channels comes as a table with one entry for each place of a block. A unit
of work is one piece of a row, or one block.

Sums over a channel are taken in float32 over a unit, and in double precision over units.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from spiking.kernels.cpu import codegen
from spiking.kernels.cpu.codegen import LANES
from spiking.kernels.cpu.writer import Frame, Writer
from spiking.kernels.rules.expressions import Vec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spiking.kernels.cpu.codegen import Code
    from spiking.kernels.rules.base import Rule

GROUP = 16  # blocks whose numbers in one lane are summed in a register
FLUSH = 64  # blocks after which sums in float32 go into those in double precision


class Unit(NamedTuple):
    """One unit of work.

    Attributes:
        first: index of its first number in a step.
        length: how many numbers it has.
        channel: to which all belong, None in lanes.
        shared: what belongs to that channel, by the name of the argument.
    """

    first: str
    length: str
    channel: str | None
    shared: dict[str, Vec]


class Shape(NamedTuple):
    """What a kernel knows of the layout when it is written.

    Attributes:
        lanes: which of the two ways.
        tail: whether units may end within a vector; where none does, half of the code goes.
    """

    lanes: bool
    tail: bool


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
            if self.shape.lanes:
                first = c.scalar(f"mul i64 {u}, {arg['block']}")
                left = c.scalar(f"sub i64 {arg['neurons']}, {first}")
                yield Unit(first, self._min(left, arg["block"]), None, {})
            else:
                row = c.scalar(f"sdiv i64 {u}, {arg['pieces']}")
                piece = c.scalar(f"srem i64 {u}, {arg['pieces']}")
                start = c.scalar(f"mul i64 {piece}, {arg['block']}")
                left = c.scalar(f"sub i64 {arg['inner']}, {start}")
                first = c.scalar(f"add i64 {c.scalar(f'mul i64 {row}, ' + arg['inner'])}, {start}")
                channel = c.scalar(f"srem i64 {row}, {arg['channels']}")
                given = {name: self._one(name, channel) for name in shared}
                yield Unit(first, self._min(left, arg["block"]), channel, given)

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
        self.clear()

    def clear(self) -> None:
        """Back to 0."""
        self.c.raw(f"store {codegen.F} zeroinitializer, ptr {self.slot}, align 64")

    def add(self, value: Vec) -> None:
        """Adds the lanes that exist."""
        self.c.raw(
            f"store {codegen.F} {(self.value() + self.c.existing(value)).name}, ptr {self.slot}, align 64"
        )

    def value(self) -> Vec:
        """What has been added up."""
        return self.c.line(f"load {codegen.F}, ptr {self.slot}, align 64")


class NormWriter(Channels):
    """Writes the kernels of a norm without a neuron; a tensor is one step.

    Args:
        stored: element type of the tensors.
        shape: which of the two ways.
        stream: whether results bypass the caches.
    """

    def __init__(self, stored: str, shape: Shape, stream: bool) -> None:
        super().__init__(stored, masked=False, stream=stream)
        self.see_channels(shape)

    def statistics(self, name: str) -> str:
        """Three sums a channel, which give mean and variance without cancellation.

        They are those of x, of the squared means of its units times their counts, and of the squared
        distances to these means.
        """
        c = self.c
        if self.shape.lanes:
            with self._groups() as (first, count):
                self._statistics_in_lanes(first, count)
            return self._finish(name)
        with self.units() as unit:
            assert unit.channel is not None
            x, squares = Sum(self.c), Sum(self.c)
            self.each(unit.length, lambda i: x.add(self._load("x", unit, i)))
            total = c.total(x.value())
            n = c.scalar(f"sitofp i64 {unit.length} to double")
            mean = c.scalar(f"fdiv double {total}, {n}")
            centre = c.broadcast(c.scalar(f"fptrunc double {mean} to float"))

            def square(i: str) -> None:
                apart = self._load("x", unit, i) - centre
                squares.add(apart * apart)

            self.each(unit.length, square)
            between = c.scalar(f"fmul double {total}, {mean}")
            for k, value in enumerate((total, between, c.total(squares.value()))):
                self.add_to(unit.channel, k, value)
        return self._finish(name)

    def _statistics_in_lanes(self, first: str, count: str) -> None:
        c = self.c
        many = c.scalar(f"sitofp i64 {count} to double")
        one = c.scalar(f"fdiv double 1.0, {many}")
        share = c.broadcast(c.scalar(f"fptrunc double {one} to float"))
        splat = c.scalar(f"insertelement {codegen.D} poison, double {one}, i64 0")
        zeros = "<" + ", ".join(["i32 0"] * LANES) + ">"
        wide = c.scalar(f"shufflevector {codegen.D} {splat}, {codegen.D} poison, {codegen.I32} {zeros}")

        def body(i: str) -> None:
            x, squares = Sum(self.c), Sum(self.c)
            with c.loop("0", count) as k:
                x.add(c.load(self.arg["x"], self._place(first, k, i), self.stored))
            mean = x.value() * share
            with c.loop("0", count) as k:
                apart = c.load(self.arg["x"], self._place(first, k, i), self.stored) - mean
                squares.add(apart * apart)
            total = c.widen(x.value())
            between = c.scalar(f"fmul {codegen.D} {c.scalar(f'fmul {codegen.D} {total}, {total}')}, {wide}")
            for n, value in enumerate((total, between, c.widen(squares.value()))):
                c.add_doubles(self.channel_sums, self.sum_place(n, i), value)

        self.each(self.arg["block"], body)

    @contextlib.contextmanager
    def _groups(self) -> Iterator[tuple[str, str]]:
        """The loop over groups of whole blocks; yields the first of a group and how many it has."""
        c = self.c
        whole = c.scalar(f"sdiv i64 {self.arg['neurons']}, {self.arg['block']}")
        with c.loop("%lo", "%hi") as group:
            first = c.scalar(f"mul i64 {group}, {GROUP}")
            yield first, self._min(c.scalar(f"sub i64 {whole}, {first}"), str(GROUP))

    def _place(self, first: str, k: str, i: str) -> str:
        block = self.c.scalar(f"add i64 {first}, {k}")
        return self._plus(self.c.scalar(f"mul i64 {block}, {self.arg['block']}"), i)

    def _load(self, name: str, unit: Unit, i: str) -> Vec:
        return self.c.load(self.arg[name], self._plus(unit.first, i), self.stored)

    def reduction(self, name: str) -> str:
        """Two sums a channel: of the gradient ``g``, and of g times the distance of x to ``centre``."""
        c = self.c
        if self.shape.lanes:
            with self._groups() as (first, count):

                def body(i: str) -> None:
                    plain, weighted = Sum(self.c), Sum(self.c)
                    centre = c.load(self.arg["centre"], i)
                    with c.loop("0", count) as k:
                        at = self._place(first, k, i)
                        g = c.load(self.arg["g"], at, self.stored)
                        plain.add(g)
                        weighted.add(g * (c.load(self.arg["x"], at, self.stored) - centre))
                    for n, one in enumerate((plain, weighted)):
                        c.add_doubles(self.channel_sums, self.sum_place(n, i), c.widen(one.value()))

                self.each(self.arg["block"], body)
            return self._finish(name)
        with self.units("centre") as unit:
            assert unit.channel is not None
            sums = (Sum(self.c), Sum(self.c))

            def row(i: str) -> None:
                g = self._load("g", unit, i)
                sums[0].add(g)
                sums[1].add(g * (self._load("x", unit, i) - unit.shared["centre"]))

            self.each(unit.length, row)
            for n, one in enumerate(sums):
                self.add_to(unit.channel, n, c.total(one.value()))
        return self._finish(name)

    def affine(self, name: str) -> str:
        """``out = scale * x + shift``."""
        with self.units("scale", "shift") as unit:

            def body(i: str) -> None:
                y = self._load("x", unit, i) * self.of(unit, "scale", i) + self.of(unit, "shift", i)
                self.c.store(y, self.arg["out"], self._plus(unit.first, i), self.stored, stream=True)

            self.each(unit.length, body)
        return self._finish(name)

    def gradient(self, name: str) -> str:
        """``gx = scale * g + lift - slope * (x - centre)``; ``g`` and ``gx`` may be one tensor."""
        with self.units("scale", "lift", "slope", "centre") as unit, self.c.relaxed():

            def body(i: str) -> None:
                apart = self._load("x", unit, i) - self.of(unit, "centre", i)
                tilt = self.of(unit, "lift", i) - self.of(unit, "slope", i) * apart
                y = self._load("g", unit, i) * self.of(unit, "scale", i) + tilt
                self.c.store(y, self.arg["gx"], self._plus(unit.first, i), self.stored, stream=True)

            self.each(unit.length, body)
        return self._finish(name)


class NormedWriter(Channels, Writer):
    """Writes the kernels of a neuron whose currents are ``scale * x + shift``, computed on the way.

    Neurons start from rest and share their parameters.

    Args:
        rule: the neuron.
        stored: element type of ``x``, spikes and gradients.
        shape: which of the two ways.
        still: whether x is the same at all steps, so that its gradient is a sum over them.
        stream: whether results bypass the caches.
    """

    def __init__(self, rule: Rule, stored: str, shape: Shape, still: bool, stream: bool) -> None:
        Writer.__init__(self, rule, stored, masked=False, stream=stream)
        self.see_channels(shape)
        self.still = still
        self.carries: list[str] = []  # areas of the way back
        self.whole = ""
        self.channel_areas: list[str] = []
        self.row_sums: list[Sum] = []

    def forward(self, name: str) -> str:
        """Numbers to spikes."""
        c = self.c
        with self.units("scale", "shift") as unit:
            self._rest(unit)
            for width, start, stop in self._passes(down=False):
                with c.loop(start, stop, width) as t:
                    self._over(unit, t, width, self._forward_steps)
        return self._finish(name)

    def backward(self, name: str) -> str:
        """Numbers and gradients of spikes to gradients of currents, and their two sums a channel.

        These are the sum of the gradients, and that of their products with the distance of x to ``centre``.
        """
        c, rule = self.c, self.rule
        self.carries = [self._local() for _ in range(rule.n_states)]
        self.whole = self._local() if self.still else ""
        self.channel_areas = [self._local(), self._local()] if self.shape.lanes else []
        self._clear(self.channel_areas, self.arg["block"])
        with self.units("scale", "shift", "centre") as unit:
            self._rest(unit)
            for width, start, stop in self._passes(down=False):
                with c.loop(start, stop, width) as t:
                    self._over(unit, t, width, self._recompute_steps)
            self._clear([*self.carries, *([self.whole] if self.still else [])], unit.length)
            self.row_sums = [] if self.shape.lanes else [Sum(c), Sum(c)]
            for width, start, stop in self._passes(down=True):
                with c.loop(start, stop, width, down=True) as t, c.relaxed():
                    self._over(unit, t, width, self._back_steps)
            if self.still:
                self.each(unit.length, lambda i: self._give(self._get(self.whole, i), unit, unit.first, i))
            if unit.channel is not None:
                for n, one in enumerate(self.row_sums):
                    self.add_to(unit.channel, n, c.total(one.value()))
            else:
                self._flush_now_and_then(unit)
        if self.shape.lanes:
            self._flush()
        return self._finish(name)

    def _rest(self, unit: Unit) -> None:
        values = [self.c.as_vec(value) for value in self.rule.rest(self.params)]

        def body(i: str) -> None:
            for value, area in zip(values, self.states, strict=True):
                self._put(value, area, i)

        self.each(unit.length, body)

    def _clear(self, areas: list[str], length: str) -> None:
        def body(i: str) -> None:
            for area in areas:
                self._put(self.c.as_vec(0.0), area, i)

        if areas:
            self.each(length, body)

    def _over(self, unit: Unit, t: str, width: int, steps: Callable[[Unit, str, int, str], None]) -> None:
        """``steps`` for all vectors of a unit; the masked one, which is rare, goes step by step."""

        def body(i: str) -> None:
            if self.c.masked and width > 1:
                down = steps == self._back_steps
                with self.c.loop(t, self._plus(t, width), down=down) as now:
                    steps(unit, now, 1, i)
            else:
                steps(unit, t, width, i)

        self.each(unit.length, body)

    def _current(self, unit: Unit, t: str, i: str) -> Vec:
        return self._x(unit, t, i) * self.of(unit, "scale", i) + self.of(unit, "shift", i)

    def _x(self, unit: Unit, t: str, i: str) -> Vec:
        at = self._plus(unit.first, i)
        return self.c.load(self.arg["x"], self._row(t, "x_step", at), self.stored)

    def _forward_steps(self, unit: Unit, t: str, width: int, i: str) -> None:
        c = self.c
        states = tuple(self._get(area, i) for area in self.states)
        currents = [self._current(unit, self._plus(t, k), i) for k in range(width)]
        for k, x in enumerate(currents):
            step = self.rule.forward(c, self.params, x, states)
            states = step.states
            spikes = c.where(step.fires, self.rule.spike(self.params), 0.0)
            index = self._row(self._plus(t, k), "out_step", self._plus(unit.first, i))
            c.store(spikes, self.arg["out"], index, self.stored, stream=True)
        self._keep(states, self.states, i)

    def _recompute_steps(self, unit: Unit, t: str, width: int, i: str) -> None:
        states = tuple(self._get(area, i) for area in self.states)
        currents = [self._current(unit, self._plus(t, k), i) for k in range(width)]
        for k, x in enumerate(currents):
            step = self.rule.forward(self.c, self.params, x, states)
            states = step.states
            for n, value in enumerate(step.saved):
                self._put(value, self.scratch, self._scratch_index(self._plus(t, k), n, i))
        self._keep(states, self.states, i)

    def _back_steps(self, unit: Unit, t: str, width: int, i: str) -> None:
        c, rule = self.c, self.rule
        e = tuple(self._get(area, i) for area in self.carries)
        at = self._plus(unit.first, i)
        for k in reversed(range(width)):
            now = self._plus(t, k)
            g = c.load(self.arg["g"], self._row(now, "g_step", at), self.stored)
            saved = tuple(
                self._get(self.scratch, self._scratch_index(now, n, i)) for n in range(rule.n_saved)
            )
            back = rule.backward(c, self.params, saved, g, e)
            e = back.states
            if self.still:
                self._put(self._get(self.whole, i) + back.current, self.whole, i)
            else:
                self._give(back.current, unit, self._row(now, "out_step", unit.first), i)
            self._accumulate(back, now, i, i)
        self._keep(e, self.carries, i)

    def _give(self, value: Vec, unit: Unit, step: str, i: str) -> None:
        """Writes the gradient of a current and adds it to the sums of its channel."""
        c = self.c
        at = self._plus(step, i)
        c.store(value, self.arg["gx"], at, self.stored, stream=True)
        apart = c.load(self.arg["x"], at, self.stored) - self.of(unit, "centre", i)
        for n, one in enumerate((value, value * apart)):
            if unit.channel is not None:
                self.row_sums[n].add(one)
            else:
                self._put(self._get(self.channel_areas[n], i) + c.existing(one), self.channel_areas[n], i)

    def _scratch_index(self, t: str, k: int, i: str) -> str:
        c = self.c
        padded = c.scalar(f"and i64 {self._plus(self.arg['block'], LANES - 1)}, {-LANES}")
        row = c.scalar(f"add i64 {c.scalar(f'mul i64 {t}, {self.rule.n_saved}')}, {k}")
        return c.scalar(f"add i64 {c.scalar(f'mul i64 {row}, {padded}')}, {i}")

    def _keep(self, values: tuple[Vec, ...], areas: list[str], i: str) -> None:
        for area, value in zip(areas, values, strict=True):
            self._put(value, area, i)

    def _flush_now_and_then(self, unit: Unit) -> None:
        c = self.c
        number = c.scalar(f"sdiv i64 {unit.first}, {self.arg['block']}")
        turn = c.scalar(f"and i64 {number}, {FLUSH - 1}")
        with c.when(c.scalar(f"icmp eq i64 {turn}, {FLUSH - 1}")):
            self._flush()

    def _flush(self) -> None:
        """Sums in float32 go into those in double precision."""
        c = self.c

        def body(i: str) -> None:
            for n, area in enumerate(self.channel_areas):
                c.add_doubles(self.channel_sums, self.sum_place(n, i), c.widen(self._get(area, i)))
                self._put(c.as_vec(0.0), area, i)

        self.each(self.arg["block"], body)
