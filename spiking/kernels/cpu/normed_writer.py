"""The assembly of the kernels of a neuron behind a norm, whose currents are computed on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spiking.kernels.cpu.channel_writer import Channels, Sum
from spiking.kernels.cpu.codegen import LANES
from spiking.kernels.cpu.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from spiking.kernels.cpu.channel_writer import Shape, Unit
    from spiking.kernels.rules.base import Rule
    from spiking.kernels.rules.expressions import Vec

FLUSH = 64  # blocks after which sums in float32 go into those in double precision


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
                    self._over(unit, t, width, self._back_steps, down=True)
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

    def _over(
        self, unit: Unit, t: str, width: int, steps: Callable[[Unit, str, int, str], None], down: bool = False
    ) -> None:
        """``steps`` for all vectors of a unit; the masked one, which is rare, goes step by step."""

        def body(i: str) -> None:
            if self.c.masked and width > 1:
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
            spikes = self.rule.emitted(c, self.params, step)
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
