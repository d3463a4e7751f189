"""The step of a user's own neuron, written down by running it once on symbols instead of tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from spiking.functional.written import UntraceableError
from spiking.kernels.rules.program import TRUTHS, Program, Tape, constant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Symbol:
    """What stands for a tensor while a step is written down: arithmetic, comparisons, and a few functions.

    Args:
        tape: where operations on it are written.
        node: its number there.
    """

    __slots__ = ("node", "tape")

    def __init__(self, tape: Tape, node: int) -> None:
        self.tape, self.node = tape, node

    @property
    def is_truth(self) -> bool:
        """Whether it stands for truth values."""
        return self.tape.nodes[self.node][0] in TRUTHS

    def new(self, op: str, *args: Any) -> Symbol:
        """The result of an operation on symbols and numbers."""
        return Symbol(self.tape, self.tape.add(op, *(self._number(arg) for arg in args)))

    def _number(self, value: Any) -> int:
        if isinstance(value, Symbol):
            if value.is_truth:  # in arithmetic 1 and 0, as PyTorch has it
                one, zero = constant(self.tape.add, 1.0), constant(self.tape.add, 0.0)
                return self.tape.add("where", value.node, one, zero)
            return value.node
        if isinstance(value, bool | int | float):
            return constant(self.tape.add, float(value))
        what = "a tensor that is no learnt number" if isinstance(value, torch.Tensor) else repr(value)
        raise UntraceableError(f"it computes with {what}")

    def _truth(self, value: Any) -> int:
        if isinstance(value, Symbol) and value.is_truth:
            return value.node
        raise UntraceableError("it combines numbers as if they were truth values")

    def fire(self) -> Symbol:
        """See `spiking.StepNeuron.fire`."""
        return self.new("fire", self)

    # -- what Python writes as signs ---------------------------------------------------------------

    def __add__(self, other: Any) -> Symbol:
        return self.new("add", self, other)

    def __radd__(self, other: Any) -> Symbol:
        return self.new("add", other, self)

    def __sub__(self, other: Any) -> Symbol:
        return self.new("sub", self, other)

    def __rsub__(self, other: Any) -> Symbol:
        return self.new("sub", other, self)

    def __mul__(self, other: Any) -> Symbol:
        return self.new("mul", self, other)

    def __rmul__(self, other: Any) -> Symbol:
        return self.new("mul", other, self)

    def __truediv__(self, other: Any) -> Symbol:
        return self.new("div", self, other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return self.new("mul", self.new("div", 1.0, self), other)  # PyTorch multiplies by the reciprocal

    def __neg__(self) -> Symbol:
        return self.new("neg", self)

    def __pow__(self, power: Any) -> Symbol:
        if power not in (2, 3):
            raise UntraceableError(f"it takes the power {power!r}; 2 and 3 are known")
        return self * self if power == 2 else self * self * self

    def __ge__(self, other: Any) -> Symbol:
        return self.new("ge", self, other)

    def __gt__(self, other: Any) -> Symbol:
        return self.new("gt", self, other)

    def __le__(self, other: Any) -> Symbol:
        return self.new("le", self, other)

    def __lt__(self, other: Any) -> Symbol:
        return self.new("lt", self, other)

    def __and__(self, other: Any) -> Symbol:
        return Symbol(self.tape, self.tape.add("and", self._truth(self), self._truth(other)))

    def __or__(self, other: Any) -> Symbol:
        return Symbol(self.tape, self.tape.add("or", self._truth(self), self._truth(other)))

    def __bool__(self) -> bool:
        raise UntraceableError("it decides by values, which differ between neurons; torch.where does that")

    __hash__ = None  # type: ignore[assignment]  # equality is not traced

    def __eq__(self, other: object) -> bool:
        raise UntraceableError("it asks whether numbers are equal")

    def __getattr__(self, name: str) -> Any:
        function = METHODS.get(name)
        if function is None:
            raise UntraceableError(f"it uses .{name} of a tensor")
        return lambda *args, **options: function(self, *args, **options)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What ``torch.exp(symbol)`` and the like call."""
        name = str(getattr(function, "__name__", function))
        symbol = next((arg for arg in args if isinstance(arg, Symbol)), None)
        if symbol is None or name not in FUNCTIONS:
            raise UntraceableError(f"it calls torch's {name}")
        return FUNCTIONS[name](*(symbol.lifted(arg) for arg in args), **(kwargs or {}))

    def lifted(self, value: Any) -> Any:
        """Numbers and 0-dimensional learnt ones as symbols of the same step; what is no number as it is."""
        if isinstance(value, Symbol) or value is None:
            return value
        return Symbol(self.tape, self._number(value))


def _where(mask: Symbol, a: Symbol, b: Symbol) -> Symbol:
    return Symbol(mask.tape, mask.tape.add("where", mask._truth(mask), mask._number(a), mask._number(b)))


def _clamp(a: Symbol, min: Any = None, max: Any = None) -> Symbol:
    low, high = a.lifted(min), a.lifted(max)
    if low is not None:
        a = _where(a >= low, a, low)
    return a if high is None else _where(a <= high, a, high)


def _alike(value: float) -> Callable[..., Symbol]:
    return lambda a, **_: a.lifted(value)


FUNCTIONS: dict[str, Callable[..., Symbol]] = {
    "abs": lambda a: a.new("abs", a),
    "add": lambda a, b: a + b,
    "clamp": _clamp,
    "clip": _clamp,
    "div": lambda a, b: a / b,
    "exp": lambda a: a.new("exp", a),
    "maximum": lambda a, b: a.new("max", a, b),
    "minimum": lambda a, b: a.new("min", a, b),
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
    "ones_like": _alike(1.0),
    "relu": lambda a, inplace=False: _where(a > 0.0, a, a.lifted(0.0)),
    "sigmoid": lambda a: a.new("sigmoid", a),
    "square": lambda a: a * a,
    "sub": lambda a, b: a - b,
    "tanh": lambda a: a.new("sigmoid", a * 2.0) * 2.0 - 1.0,
    "where": _where,
    "zeros_like": _alike(0.0),
}
METHODS: dict[str, Callable[..., Symbol]] = {
    **{
        name: FUNCTIONS[name] for name in ("abs", "clamp", "clip", "exp", "relu", "sigmoid", "square", "tanh")
    },
    "detach": lambda a: a.new("detach", a),
    "float": lambda a: Symbol(a.tape, a._number(a)),
    "to": lambda a, *_, **__: Symbol(a.tape, a._number(a)),
    "type_as": lambda a, _: Symbol(a.tape, a._number(a)),
}


def trace(step: Callable[..., Any], names: Sequence[str], learnt: Sequence[str]) -> Program:
    """What a step does, as a program.

    Args:
        step: ``step(x, states, parameters)``, symbols in and ``(spikes, states)`` out, tuples and a mapping.
        names: of the states.
        learnt: names of the learnt numbers.

    Raises:
        UntraceableError: it does something that a kernel cannot.
        ValueError: it does not give as many states as it takes.
    """
    tape = Tape()
    leaf = Symbol(tape, tape.add("x"))
    states = tuple(Symbol(tape, tape.add("state", k)) for k in range(len(names)))
    parameters = {name: Symbol(tape, tape.add("param", name)) for name in learnt}
    try:
        spikes, after = step(leaf, states, parameters)
    except TypeError as error:
        raise UntraceableError(f"it takes tensors alone: {error}") from error
    outputs = tuple(leaf._number(one) for one in (spikes, *after))
    for node in tape.nodes:
        if node[0] == "const" and not math.isfinite(float.fromhex(node[1])):
            raise UntraceableError(f"it computes with the number {float.fromhex(node[1])}")
    return Program(tuple(tape.nodes), outputs)
