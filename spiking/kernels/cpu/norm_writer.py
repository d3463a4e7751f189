"""The assembly of the kernels of a norm alone: its sums over channels and its gradient."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from spiking.kernels.cpu import codegen
from spiking.kernels.cpu.channel_writer import Channels, Sum
from spiking.kernels.cpu.codegen import LANES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spiking.kernels.cpu.channel_writer import Shape, Unit
    from spiking.kernels.rules.expressions import Vec

GROUP = 16  # blocks whose numbers in one lane are summed in a register


class NormWriter(Channels):
    """Writes the kernels of a norm without a neuron; a tensor is one step.

    Args:
        stored: element type of the tensors.
        shape: which of the two ways.
    """

    def __init__(self, stored: str, shape: Shape) -> None:
        super().__init__(stored, masked=False, stream=False)
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

    def gradient(self, name: str) -> str:
        """``g = scale * g + lift - slope * (x - centre)``, in place."""
        with self.units("scale", "lift", "slope", "centre") as unit, self.c.relaxed():

            def body(i: str) -> None:
                apart = self._load("x", unit, i) - self.of(unit, "centre", i)
                tilt = self.of(unit, "lift", i) - self.of(unit, "slope", i) * apart
                y = self._load("g", unit, i) * self.of(unit, "scale", i) + tilt
                self.c.store(y, self.arg["g"], self._plus(unit.first, i), self.stored)

            self.each(unit.length, body)
        return self._finish(name)
