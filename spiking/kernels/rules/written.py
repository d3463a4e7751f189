"""Neurons whose step a user wrote: the rule of a program."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from spiking.kernels.rules.base import Back, Params, Step
from spiking.kernels.rules.neurons import Spiking
from spiking.kernels.rules.program import TRUTHS, Derivative, Node, Program, derivative, needed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from spiking.kernels.rules.expressions import Code, Vec


@dataclass(frozen=True)
class Written(Spiking):
    """A step as a program, its derivative by `program.derivative`.

    Attributes:
        nodes: see `Program`.
        outputs: see `Program`.
        rests: the states before the first step.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    rests: tuple[float, ...]

    @cached_property
    def back(self) -> Derivative:
        """One step back."""
        return derivative(Program(self.nodes, self.outputs), self.n_states)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The learnt numbers; others are part of the program."""
        return Program(self.nodes, self.outputs).parameters

    @property
    def tabled(self) -> tuple[str, ...]:
        """All of them."""
        return self.names

    learnt = tabled

    @property
    def n_states(self) -> int:
        """As many as the user named."""
        return len(self.rests)

    @property
    def n_saved(self) -> int:
        """What the derivative needs."""
        return len(self.back.saved)

    def rest(self, p: Params) -> tuple[Vec | float, ...]:
        """See `rests`."""
        return self.rests

    def forward(self, c: Code, p: Params, x: Vec, states: tuple[Vec, ...]) -> Step:
        """The program."""
        fires, *after = self.outputs
        saved = self.back.saved
        leaves = {("x",): x, **{("state", k): one for k, one in enumerate(states)}, **_named(p)}
        values = self._evaluate(c, self.nodes, (*self.outputs, *saved), leaves, {})
        (op, *args), spikes = self.nodes[fires], values[fires]
        if op == "fire":
            spikes = values[args[0]] >= 0.0
        return Step(spikes, tuple(values[k] for k in after), tuple(values[k] for k in saved))

    def backward(self, c: Code, p: Params, saved: tuple[Vec, ...], g: Vec, e: tuple[Vec, ...]) -> Back:
        """The derivative; what it needs of the step itself has the bits of the step."""
        back = self.back
        given = dict(zip(back.saved, saved, strict=True))
        leaves = {("g",): g, **{("e", k): one for k, one in enumerate(e)}, **_named(p)}
        values = self._evaluate(c, back.program.nodes, back.program.outputs, leaves, given)
        found = [values[k] for k in back.program.outputs]
        current, states, params = found[0], found[1 : 1 + self.n_states], found[1 + self.n_states :]
        return Back(current, tuple(states), dict(zip(self.learnt, params, strict=True)))

    def _evaluate(
        self,
        c: Code,
        nodes: tuple[Node, ...],
        outputs: Iterable[int],
        leaves: Mapping[Node, Vec],
        given: Mapping[int, Vec],
    ) -> dict[int, Vec]:
        values = dict(given)
        for k in needed(nodes, outputs, given):
            if k in values:
                continue
            if (node := nodes[k]) in leaves:
                values[k] = leaves[node]
            elif k < len(self.nodes):
                with c.exact():
                    values[k] = self._value(c, node, values)
            else:
                values[k] = self._value(c, node, values)
        return values

    def _value(self, c: Code, node: Node, values: Mapping[int, Vec]) -> Vec:
        op, *args = node
        if op == "const":
            return c.as_vec(float.fromhex(args[0]))
        vecs = [values[arg] for arg in args]
        if op in ("add", "sub", "mul", "div"):
            return c.binary(op, *vecs)
        if op in ("and", "or"):
            return c.logic(op, *vecs)
        if op in TRUTHS:
            return c.compare(op, *vecs)
        if op == "fire":
            return c.where(vecs[0] >= 0.0, 1.0, 0.0)
        if op == "slope":
            return self.slope(c, vecs[0])
        if op in ("max", "min"):
            return c.call(f"{op}num", *vecs)
        if op == "where":
            return c.where(*vecs)
        if op == "detach":
            return vecs[0]
        simple = {"neg": c.negate, "abs": c.abs, "exp": c.exp, "sigmoid": c.sigmoid}
        return simple[op](vecs[0])


def _named(p: Params) -> dict[Node, Vec]:
    return {("param", name): value for name, value in p.items()}
