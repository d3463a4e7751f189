"""One step of a neuron as a list of operations, and the list of operations that differentiates it.

A node is a tuple: its operation, and the numbers of the earlier nodes that it is applied to. Leaves are
``("x",)``, ``("state", k)``, ``("param", name)`` and ``("const", value)``, the value as `float.hex` writes
it, since tuples take 0.0 for -0.0; on the way back ``("g",)``, the gradient of the spikes, and ``("e", k)``,
that of state k after the step.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

Node = tuple[Any, ...]
LEAVES = ("x", "state", "param", "const", "g", "e")
TRUTHS = ("ge", "gt", "le", "lt", "and", "or")


@dataclass(frozen=True)
class Program:
    """One step.

    Attributes:
        nodes: operations, each behind those that it is applied to.
        outputs: spikes, then the states after the step.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the learnt numbers, sorted."""
        return tuple(sorted(node[1] for node in self.nodes if node[0] == "param"))


@dataclass(frozen=True)
class Derivative:
    """One step back.

    Attributes:
        program: gives the gradients of the current, of the states before the step, and of the parameters; its
            first nodes are those of the step itself.
        saved: nodes of the step whose values have to be kept for it.
    """

    program: Program
    saved: tuple[int, ...]


@dataclass
class Tape:
    """Where operations are written down; equal ones only once."""

    nodes: list[Node] = field(default_factory=list)
    places: dict[Node, int] = field(default_factory=dict)

    def add(self, op: str, *args: Any) -> int:
        """The number of a node."""
        node = (op, *args)
        if node not in self.places:
            self.places[node] = len(self.nodes)
            self.nodes.append(node)
        return self.places[node]


def constant(add: Callable[..., int], value: float) -> int:
    """The node of a number."""
    return add("const", float(value).hex())


def arguments(node: Node) -> list[int]:
    """Numbers of the nodes that a node is applied to."""
    return [] if node[0] in LEAVES else list(node[1:])


def needed(nodes: Sequence[Node], outputs: Iterable[int], given: Container[int] = ()) -> list[int]:
    """Nodes that outputs depend on, in order, where the values of ``given`` are there already."""
    found: set[int] = set()
    waiting = list(outputs)
    while waiting:
        k = waiting.pop()
        if k not in found:
            found.add(k)
            if k not in given:
                waiting += arguments(nodes[k])
    return sorted(found)


def derivative(program: Program, n_states: int) -> Derivative:
    """Reverse-mode differentiation of a step."""
    tape = Tape()
    for node in program.nodes:
        tape.add(*node)
    back = _Adjoints(tape)
    fires, *states = program.outputs
    back.give(fires, tape.add("g"))
    for k, state in enumerate(states):
        back.give(state, tape.add("e", k))
    for k in reversed(range(len(program.nodes))):
        back.through(k)
    wanted = [("x",), *(("state", k) for k in range(n_states)), *(("param", p) for p in program.parameters)]
    zero = constant(tape.add, 0.0)
    outputs = tuple(back.of.get(tape.places.get(node, -1), zero) for node in wanted)
    nodes = tuple(tape.nodes)
    return Derivative(Program(nodes, outputs), _kept(program, nodes, outputs))


class _Adjoints:
    """Gradients of nodes, as far as they have been gathered.

    Args:
        tape: where they are computed.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.of: dict[int, int] = {}

    def give(self, k: int, gradient: int) -> None:
        """Adds to the gradient of a node."""
        before = self.of.get(k)
        self.of[k] = gradient if before is None else self.tape.add("add", before, gradient)

    def through(self, k: int) -> None:
        """Hands the gradient of a node on to what it is applied to."""
        (op, *args), g = self.tape.nodes[k], self.of.get(k)
        if g is not None and op in _RULES:
            add = self.tape.add
            for arg, gradient in zip(args, _RULES[op](add, g, k, *args), strict=True):
                if gradient is not None:
                    self.give(arg, gradient)


# Of each operation the gradients of what it is applied to: ``rule(add, gradient, node, *arguments)``.
# Ties are broken as PyTorch breaks them; what a mask chooses by has no gradient.
_RULES: Mapping[str, Any] = {
    "add": lambda add, g, k, a, b: (g, g),
    "sub": lambda add, g, k, a, b: (g, add("neg", g)),
    "mul": lambda add, g, k, a, b: (add("mul", g, b), add("mul", g, a)),
    "div": lambda add, g, k, a, b: (add("div", g, b), add("neg", add("div", add("mul", g, k), b))),
    "neg": lambda add, g, k, a: (add("neg", g),),
    "where": lambda add, g, k, mask, a, b: (
        None,
        add("where", mask, g, constant(add, 0.0)),
        add("where", mask, constant(add, 0.0), g),
    ),
    "max": lambda add, g, k, a, b: (_better(add, g, "gt", a, b), _better(add, g, "gt", b, a)),
    "min": lambda add, g, k, a, b: (_better(add, g, "lt", a, b), _better(add, g, "lt", b, a)),
    "abs": lambda add, g, k, a: (
        add("sub", _where(add, "gt", a, constant(add, 0.0), g), _where(add, "lt", a, constant(add, 0.0), g)),
    ),
    "exp": lambda add, g, k, a: (add("mul", g, k),),
    "sigmoid": lambda add, g, k, a: (add("mul", add("mul", g, k), add("sub", constant(add, 1.0), k)),),
    "fire": lambda add, g, k, a: (add("mul", g, add("slope", a)),),
}


def _where(add: Any, relation: str, a: int, b: int, g: int) -> int:
    """``g`` where the relation holds, else 0."""
    found: int = add("where", add(relation, a, b), g, constant(add, 0.0))
    return found


def _better(add: Any, g: int, relation: str, a: int, b: int) -> int:
    """``g`` where a is chosen, half of it where both are equal, else 0."""
    half = add("mul", g, constant(add, 0.5))
    found: int = add(
        "add", _where(add, relation, a, b, half), _where(add, relation.replace("t", "e"), a, b, half)
    )
    return found


def _kept(program: Program, nodes: tuple[Node, ...], outputs: tuple[int, ...]) -> tuple[int, ...]:
    """The fewest nodes of the step from which all that its derivative uses of it can be computed again.

    A minimum vertex cut between the current and the states on one side, and what is used on the other: by
    Menger's theorem as many as there are paths without a common node, which are found one by one.
    """
    size = len(program.nodes)
    used = {arg for k in needed(nodes, outputs) if k >= size for arg in arguments(nodes[k]) if arg < size} | {
        k for k in outputs if k < size
    }
    start, end = -1, -2
    flow: dict[tuple[int, bool], dict[tuple[int, bool], int]] = {}  # (node, behind it?) -> room of edges

    def edge(a: tuple[int, bool], b: tuple[int, bool], room: int) -> None:
        flow.setdefault(a, {})[b] = room
        flow.setdefault(b, {}).setdefault(a, 0)

    for k in needed(program.nodes, used):
        node = program.nodes[k]
        edge((k, False), (k, True), size if node[0] in (*TRUTHS, "param") else 1)
        if node[0] in ("x", "state"):
            edge((start, True), (k, False), size)
        for arg in arguments(node):
            edge((arg, True), (k, False), size)
        if k in used:
            edge((k, True), (end, False), size)
    while path := _path(flow, (start, True), (end, False)):
        for a, b in pairwise(path):
            flow[a][b] -= 1
            flow[b][a] += 1
    reached = _reached(flow, (start, True))
    return tuple(k for k in range(size) if (k, False) in reached and (k, True) not in reached)


def _reached(
    flow: Mapping[tuple[int, bool], Mapping[tuple[int, bool], int]], start: tuple[int, bool]
) -> dict[tuple[int, bool], tuple[int, bool] | None]:
    """What can be reached through edges that have room, and from where."""
    before: dict[tuple[int, bool], tuple[int, bool] | None] = {start: None}
    waiting = deque([start])
    while waiting:
        a = waiting.popleft()
        for b, room in flow.get(a, {}).items():
            if room and b not in before:
                before[b] = a
                waiting.append(b)
    return before


def _path(
    flow: Mapping[tuple[int, bool], Mapping[tuple[int, bool], int]],
    start: tuple[int, bool],
    end: tuple[int, bool],
) -> list[tuple[int, bool]]:
    before = _reached(flow, start)
    if end not in before:
        return []
    path: list[tuple[int, bool]] = [end]
    while (previous := before[path[-1]]) is not None:
        path.append(previous)
    return path[::-1]
