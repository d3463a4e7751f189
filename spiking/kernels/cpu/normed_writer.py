"""The assembly of the kernels of a neuron behind a norm, whose currents are computed on the way.

A pooling over windows of 2 x 2 may follow: then four neurons side by side send one number, which is all that
is written, and on the way back one gradient serves the four.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from spiking.kernels.cpu.channel_writer import Channels, Sum
from spiking.kernels.cpu.codegen import LANES
from spiking.kernels.cpu.writer import Writer
from spiking.kernels.rules.pooling import WINDOW, kept, pooled, shares

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spiking.kernels.cpu.channel_writer import Shape, Unit
    from spiking.kernels.rules.base import Rule
    from spiking.kernels.rules.expressions import Vec

# units after which sums in float32 go into those in double precision; a channel has all of a unit in windows
FLUSH, FLUSH_WINDOWS = 64, 4


class Place(NamedTuple):
    """A vector of neurons, one for each number that leaves it, or the four of a window for each.

    Attributes:
        channel: index of what belongs to channels.
        own: index of each one's part in the areas of a block.
        reads: index of each one's number within a step.
        gives: index of what leaves within a step.
    """

    channel: str
    own: tuple[str, ...]
    reads: tuple[str, ...]
    gives: str


class NormedWriter(Channels, Writer):
    """Writes the kernels of a neuron whose currents are ``scale * x + shift``, computed on the way.

    Neurons start from rest and share their parameters.

    Args:
        rule: the neuron.
        stored: element type of ``x``, spikes and gradients.
        shape: how the numbers lie.
        still: whether x is the same at all steps, so that its gradient is a sum over them.
        stream: whether results bypass the caches.
        pooling: kind of `spiking.kernels.rules.pooling`, where places come in windows; else None.
    """

    def __init__(
        self, rule: Rule, stored: str, shape: Shape, still: bool, stream: bool, pooling: str | None = None
    ) -> None:
        Writer.__init__(self, rule, stored, masked=False, stream=stream)
        self.see_channels(shape)
        self.still, self.pooling = still, pooling
        self.n_kept = kept(rule.n_saved, pooling)
        self.carries: list[str] = []  # areas of the way back
        self.whole = ""
        self.channel_areas: list[str] = []
        self.row_sums: list[Sum] = []

    def forward(self, name: str) -> str:
        """Numbers to spikes, or to what is pooled of them."""
        c = self.c
        with self.units("scale", "shift") as unit:
            self._fill(self.states, self.rule.rest(self.params), unit)
            for width, start, stop in self._passes(down=False):
                with c.loop(start, stop, width) as t:
                    self._over(unit, t, width, self._forward_steps)
        return self._finish(name)

    def backward(self, name: str) -> str:
        """Numbers and gradients of what left to gradients of currents, and their two sums a channel.

        These are the sum of the gradients, and that of their products with the distance of x to ``centre``.
        """
        c, rule = self.c, self.rule
        self.carries = [self._local() for _ in range(rule.n_states)]
        self.whole = self._local() if self.still else ""
        self.channel_areas = [self._local(), self._local()] if self.shape.lanes else []
        self._clear(self.channel_areas, self._table_length())
        with self.units("scale", "shift", "centre") as unit:
            self._fill(self.states, rule.rest(self.params), unit)
            for width, start, stop in self._passes(down=False):
                with c.loop(start, stop, width) as t:
                    self._over(unit, t, width, self._recompute_steps)
            self._clear([*self.carries, *([self.whole] if self.still else [])], self._area_length(unit))
            self.row_sums = [] if self.shape.lanes else [Sum(c), Sum(c)]
            for width, start, stop in self._passes(down=True):
                with c.loop(start, stop, width, down=True) as t, c.relaxed():
                    self._over(unit, t, width, self._back_steps, down=True)
            if self.still:
                self._places(unit, lambda at: self._give(self._gets(self.whole, at), unit, at, at.reads))
            if unit.channel is not None:
                for n, one in enumerate(self.row_sums):
                    self.add_to(unit.channel, n, c.total(one.value()))
            else:
                self._flush_now_and_then(unit)
        if self.shape.lanes:
            self._flush()
        return self._finish(name)

    # ---- places
    def _places(self, unit: Unit, body: Callable[[Place], None]) -> None:
        """``body`` for all vectors of a unit."""
        if not self.shape.windows:
            self.each(unit.length, lambda i: body(self._place(unit, i)))
            return
        with self.c.loop("0", unit.length) as w:
            self.each(self.arg["inner"], lambda i: body(self._window(unit, w, i)))

    def _place(self, unit: Unit, i: str) -> Place:
        at = self._plus(unit.first, i)
        return Place(i, (i,), (at,), at)

    def _window(self, unit: Unit, w: str, i: str) -> Place:
        """The neurons of four neighbours, of the channels from ``i`` on, in the w-th window of a unit."""
        c, inner = self.c, self.arg["inner"]
        quarter = c.scalar(f"lshr i64 {self.arg['block']}, 2")
        own = [self._plus(c.scalar(f"mul i64 {w}, {self.arg['channels']}"), i)]
        for _ in range(3):
            own.append(self._plus(own[-1], quarter))
        aside = c.scalar(f"mul i64 {w}, {inner}")
        left = self._plus(self._plus(unit.first, c.scalar(f"shl i64 {aside}, 1")), i)
        below = c.scalar(f"shl i64 {c.scalar(f'mul i64 {inner}, ' + self.arg['across'])}, 1")
        right = self._plus(left, inner)
        reads = (left, right, self._plus(left, below), self._plus(right, below))
        return Place(i, tuple(own), reads, self._plus(self._plus(unit.pooled, aside), i))

    def _passes(self, down: bool) -> list[tuple[int, str, str]]:
        # four neurons at a time keep as many rows of memory busy as four steps
        return [(1, "0", self.arg["steps"])] if self.shape.windows else super()._passes(down)

    def _over(
        self,
        unit: Unit,
        t: str,
        width: int,
        steps: Callable[[Unit, str, int, Place], None],
        down: bool = False,
    ) -> None:
        """``steps`` for all vectors of a unit; the masked one, which is rare, goes step by step."""

        def body(at: Place) -> None:
            if self.c.masked and width > 1:
                with self.c.loop(t, self._plus(t, width), down=down) as now:
                    steps(unit, now, 1, at)
            else:
                steps(unit, t, width, at)

        self._places(unit, body)

    # ---- areas
    def _area_length(self, unit: Unit) -> str:
        return self.arg["block"] if self.shape.windows else unit.length

    def _table_length(self) -> str:
        return self.arg["channels"] if self.shape.windows else self.arg["block"]

    def _fill(self, areas: list[str], values: Sequence[Vec | float], unit: Unit) -> None:
        vectors = [self.c.as_vec(value) for value in values]

        def body(i: str) -> None:
            for value, area in zip(vectors, areas, strict=True):
                self._put(value, area, i)

        self.each(self._area_length(unit), body)

    def _clear(self, areas: list[str], length: str) -> None:
        def body(i: str) -> None:
            for area in areas:
                self._put(self.c.as_vec(0.0), area, i)

        if areas:
            self.each(length, body)

    def _gets(self, area: str, at: Place) -> list[Vec]:
        return [self._get(area, i) for i in at.own]

    def _states(self, areas: list[str], at: Place) -> list[tuple[Vec, ...]]:
        return [tuple(self._get(area, i) for area in areas) for i in at.own]

    def _keep(self, states: list[tuple[Vec, ...]], areas: list[str], at: Place) -> None:
        for values, i in zip(states, at.own, strict=True):
            for value, area in zip(values, areas, strict=True):
                self._put(value, area, i)

    def _scratch_index(self, t: str, k: int, i: str) -> str:
        c = self.c
        padded = c.scalar(f"and i64 {self._plus(self.arg['block'], LANES - 1)}, {-LANES}")
        row = c.scalar(f"add i64 {c.scalar(f'mul i64 {t}, {self.n_kept}')}, {k}")
        return c.scalar(f"add i64 {c.scalar(f'mul i64 {row}, {padded}')}, {i}")

    # ---- steps
    def _inputs(self, unit: Unit, t: str, width: int, at: Place) -> list[list[Vec]]:
        """Of ``width`` steps, the currents of all neurons of a place."""
        scale, shift = self.of(unit, "scale", at.channel), self.of(unit, "shift", at.channel)
        return [
            [
                self.c.load(self.arg["x"], self._row(self._plus(t, k), "x_step", i), self.stored) * scale
                + shift
                for i in at.reads
            ]
            for k in range(width)
        ]

    def _forward_steps(self, unit: Unit, t: str, width: int, at: Place) -> None:
        c, states = self.c, self._states(self.states, at)
        for k, currents in enumerate(self._inputs(unit, t, width, at)):
            spikes = []
            for m, x in enumerate(currents):
                step = self.rule.forward(c, self.params, x, states[m])
                states[m] = step.states
                spikes.append(self.rule.emitted(c, self.params, step))
            index = self._row(self._plus(t, k), "out_step", at.gives)
            c.store(pooled(c, self.pooling, spikes), self.arg["out"], index, self.stored, stream=True)
        self._keep(states, self.states, at)

    def _recompute_steps(self, unit: Unit, t: str, width: int, at: Place) -> None:
        states = self._states(self.states, at)
        for k, currents in enumerate(self._inputs(unit, t, width, at)):
            now, spikes = self._plus(t, k), []
            for m, x in enumerate(currents):
                step = self.rule.forward(self.c, self.params, x, states[m])
                states[m] = step.states
                for n, value in enumerate(step.saved):
                    self._put(value, self.scratch, self._scratch_index(now, n, at.own[m]))
                spikes.append(self.rule.emitted(self.c, self.params, step))
            if self.pooling == "max":
                for share, i in zip(shares(self.c, spikes), at.own, strict=True):
                    self._put(share, self.scratch, self._scratch_index(now, self.rule.n_saved, i))
        self._keep(states, self.states, at)

    def _back_steps(self, unit: Unit, t: str, width: int, at: Place) -> None:
        c, rule = self.c, self.rule
        states = self._states(self.carries, at)
        for k in reversed(range(width)):
            now = self._plus(t, k)
            g = c.load(self.arg["g"], self._row(now, "g_step", at.gives), self.stored)
            if self.pooling == "avg":
                g = g * (1.0 / WINDOW)
            currents = []
            for m, i in enumerate(at.own):
                saved = tuple(
                    self._get(self.scratch, self._scratch_index(now, n, i)) for n in range(self.n_kept)
                )
                mine = g * saved[-1] if self.pooling == "max" else g
                back = rule.backward(c, self.params, saved[: rule.n_saved], mine, states[m])
                states[m] = back.states
                currents.append(back.current)
                self._accumulate(back, now, i, i)
            if self.still:
                for i, one in zip(at.own, currents, strict=True):
                    self._put(self._get(self.whole, i) + one, self.whole, i)
            else:
                places = tuple(self._row(now, "out_step", i) for i in at.reads)
                self._give(currents, unit, at, places)
        self._keep(states, self.carries, at)

    def _give(self, values: list[Vec], unit: Unit, at: Place, places: tuple[str, ...]) -> None:
        """Writes the gradients of currents and adds them to the sums of their channel."""
        c, centre = self.c, self.of(unit, "centre", at.channel)
        terms: list[tuple[Vec, Vec]] = []
        for value, index in zip(values, places, strict=True):
            c.store(value, self.arg["gx"], index, self.stored, stream=True)
            terms.append((value, value * (c.load(self.arg["x"], index, self.stored) - centre)))
        for n in range(2):
            total = terms[0][n]
            for more in terms[1:]:
                total = total + more[n]
            if unit.channel is not None:
                self.row_sums[n].add(total)
            else:
                area = self.channel_areas[n]
                self._put(self._get(area, at.channel) + c.existing(total), area, at.channel)

    # ---- sums of channels
    def _flush_now_and_then(self, unit: Unit) -> None:
        c = self.c
        last = (FLUSH_WINDOWS if self.shape.windows else FLUSH) - 1
        turn = c.scalar(f"and i64 {unit.number}, {last}")
        with c.when(c.scalar(f"icmp eq i64 {turn}, {last}")):
            self._flush()

    def _flush(self) -> None:
        """Sums in float32 go into those in double precision."""
        c = self.c

        def body(i: str) -> None:
            for n, area in enumerate(self.channel_areas):
                c.add_doubles(self.channel_sums, self.sum_place(n, i), c.widen(self._get(area, i)))
                self._put(c.as_vec(0.0), area, i)

        self.each(self._table_length(), body)
