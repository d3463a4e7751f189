"""The assembly of LM-HT's kernels: every step sees the currents of all steps.

T and T' are small and known when the code is written, so all loops over time are unrolled: sixteen neurons
at a time are read at every step, live in registers, and leave. Nothing but the currents is kept between the
two passes. Sums for the gradients of the matrix and of the leak are taken over `CHUNK` neurons in float32
registers, and over all of them in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spiking.kernels.cpu import codegen
from spiking.kernels.cpu.codegen import LANES
from spiking.kernels.cpu.writer import Frame

if TYPE_CHECKING:
    from spiking.kernels.rules.expressions import Vec
    from spiking.kernels.rules.neurons import LMHT

CHUNK = 1024  # neurons whose sums are taken in float32


class MixingWriter(Frame):
    """Writes the two kernels of LM-HT.

    The numbers of the neuron come as one table: threshold, first potential, leak ``[T]``, matrix
    ``[T, T']``.
    """

    def __init__(self, rule: LMHT, stored: str, masked: bool, stream: bool) -> None:
        super().__init__(stored, masked, stream)
        self.rule, self.stored = rule, stored
        steps, width = rule.steps, rule.steps_in
        self.theta, self.start = self._number(0), self._number(1)
        self.leak = [self._number(2 + t) for t in range(steps)]
        first = 2 + steps
        self.weight = [[self._number(first + t * width + j) for j in range(width)] for t in range(steps)]
        self.edges = [self.theta * float(k) for k in range(1, rule.levels + 1)]

    def _number(self, index: int) -> Vec:
        c = self.c
        address = c.at(self.arg["coefficients"], "float", str(index))
        return c.broadcast(c.scalar(f"load float, ptr {address}"))

    def _currents(self, at: str) -> list[Vec]:
        c = self.c
        rows = [self._row(str(j), "x_step", at) for j in range(self.rule.steps_in)]
        return [c.load(self.arg["x"], row, self.stored) for row in rows]

    def _potential(self, t: int, v: Vec, xs: list[Vec]) -> Vec:
        """As in the reference, operation by operation."""
        current = self.weight[t][0] * xs[0]
        for w, x in zip(self.weight[t][1:], xs[1:], strict=True):
            current = current + w * x
        return self.leak[t] * v + current

    def forward(self, name: str) -> str:
        """Currents to outputs."""
        c = self.c
        with c.loop("%lo", "%hi", LANES) as at:
            xs, v = self._currents(at), self.start
            for t in range(self.rule.steps):
                m = self._potential(t, v, xs)
                y = self.rule.fire(c, m, self.edges)
                v = m - y
                c.store(y, self.arg["out"], self._row(str(t), "out_step", at), self.stored, stream=True)
        return self._finish(name)

    def backward(self, name: str) -> str:
        """Currents and gradients of outputs to gradients of currents, of the leak and of the matrix."""
        c = self.c
        steps, width = self.rule.steps, self.rule.steps_in
        count = steps * (1 + width)
        sums = [c.scalar(f"alloca {codegen.F}, align 64") for _ in range(count)]
        with c.loop("%lo", "%hi", CHUNK) as first:
            last = self._min(self._plus(first, CHUNK), "%hi")
            for place in sums:
                c.raw(f"store {codegen.F} zeroinitializer, ptr {place}, align 64")
            with c.loop(first, last, LANES) as at:
                self._backward_lanes(at, sums)
            for k, place in enumerate(sums):
                self._flush(k, place)
        return self._finish(name)

    def _backward_lanes(self, at: str, sums: list[str]) -> None:
        c, rule = self.c, self.rule
        xs, v = self._currents(at), self.start
        passed: list[Vec] = []
        for t in range(rule.steps):
            m = self._potential(t, v, xs)
            g = c.load(self.arg["g"], self._row(str(t), "g_step", at), self.stored)
            g = rule.inside(c, m, self.theta, g)
            with c.relaxed():
                self._add_to(sums[t], g * v)
            passed.append(g)
            if t + 1 < rule.steps:
                v = m - rule.fire(c, m, self.edges)
        with c.relaxed():
            for j in range(rule.steps_in):
                gx = self.weight[0][j] * passed[0]
                for t in range(1, rule.steps):
                    gx = gx + self.weight[t][j] * passed[t]
                index = self._row(str(j), "out_step", at)
                c.store(gx, self.arg["gx"], index, self.stored, stream=True)
                for t in range(rule.steps):
                    self._add_to(sums[rule.steps + t * rule.steps_in + j], passed[t] * xs[j])

    def _add_to(self, place: str, value: Vec) -> None:
        c = self.c
        total = c.line(f"load {codegen.F}, ptr {place}, align 64") + value
        c.raw(f"store {codegen.F} {total.name}, ptr {place}, align 64")

    def _flush(self, k: int, place: str) -> None:
        """Adds a sum of one chunk to the sixteen float64 sums of this worker."""
        c = self.c
        value = c.line(f"load {codegen.F}, ptr {place}, align 64")
        c.add_doubles(self.sums, str(k * LANES), c.widen(value))
