"""The operations of rules as lines of Triton."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from typing_extensions import override

from spiking.kernels.rules.expressions import Code, Kind, Vec

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|"}
_RELATIONS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_FUNCTIONS = {"fabs": "tl.abs", "floor": "tl.floor", "minnum": "tl.minimum", "maxnum": "tl.maximum"}


class TritonCode(Code):
    """Collects lines, one for each operation.

    Args:
        prefix: of the names of values, which must differ between loops.
        exact: whether divisions are rounded as IEEE 754 says, which takes several instructions.
    """

    def __init__(self, prefix: str, exact: bool) -> None:
        self.lines: list[str] = []
        self.prefix, self.rounded = prefix, exact
        self.count = 0

    def take(self) -> list[str]:
        """The lines since the last call."""
        lines, self.lines = self.lines, []
        return lines

    def line(self, text: str, kind: Kind = "number") -> Vec:
        """A new value."""
        self.count += 1
        name = f"{self.prefix}{self.count}"
        self.lines.append(f"{name} = {text}")
        return Vec(self, name, kind)

    @contextlib.contextmanager
    def exact(self) -> Iterator[None]:
        """See `Code.exact`; multiply and add never fuse here."""
        before, self.rounded = self.rounded, True
        try:
            yield
        finally:
            self.rounded = before

    @override
    def as_vec(self, value: Vec | float) -> Vec:
        return value if isinstance(value, Vec) else self.line(f"tl.full((BLOCK,), {value!r}, tl.float32)")

    @override
    def binary(self, op: str, a: Vec | float, b: Vec | float) -> Vec:
        one, other = self.as_vec(a).name, self.as_vec(b).name
        if op == "div" and self.rounded:
            return self.line(f"tl.div_rn({one}, {other})")
        return self.line(f"{one} {_SIGNS[op]} {other}")

    @override
    def negate(self, a: Vec) -> Vec:
        return self.line(f"-{a.name}")

    @override
    def compare(self, op: str, a: Vec, b: Vec | float) -> Vec:
        return self.line(f"{a.name} {_RELATIONS[op]} {self.as_vec(b).name}", "truth")

    @override
    def logic(self, op: str, a: Vec, b: Vec) -> Vec:
        return self.line(f"{a.name} {_SIGNS[op]} {b.name}", "truth")

    @override
    def where(self, mask: Vec, a: Vec | float, b: Vec | float) -> Vec:
        return self.line(f"tl.where({mask.name}, {self.as_vec(a).name}, {self.as_vec(b).name})")

    @override
    def call(self, function: str, *args: Vec | float) -> Vec:
        names = ", ".join(self.as_vec(arg).name for arg in args)
        return self.line(f"{_FUNCTIONS[function]}({names})")

    @override
    def exp(self, a: Vec) -> Vec:
        return self.line(f"tl.exp({a.name})")

    # -- integers, which rules of levels use

    @override
    def select(self, mask: Vec, a: Vec, b: Vec) -> Vec:
        return self.line(f"tl.where({mask.name}, {a.name}, {b.name})", "integer")

    @override
    def floor_log2_ratio(self, a: Vec, b: Vec) -> Vec:
        one, other = (f"{v.name}.to(tl.int32, bitcast=True)" for v in (a, b))
        return self.line(f"({one} - {other}) >> 23", "integer")

    @override
    def lesser(self, a: Vec, b: Vec | int) -> Vec:
        return self.line(f"tl.minimum({a.name}, {b.name if isinstance(b, Vec) else b})", "integer")

    @override
    def power_of_two(self, k: Vec) -> Vec:
        return self.line(f"((tl.maximum({k.name}, 0) + 127) << 23).to(tl.float32, bitcast=True)")
