"""What the equations of a neuron are written in: vectors, and the operations on them.

Rules know this language alone; `spiking.kernels.cpu.codegen` turns it into LLVM code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

Kind = Literal["number", "integer", "truth"]


class Vec:
    """One value of all lanes of a vector: numbers, integers or truth values.

    Args:
        code: where the operations on it are written down.
        name: what it is called there.
        kind: what its lanes hold.
    """

    __slots__ = ("code", "kind", "name")

    def __init__(self, code: Code, name: str, kind: Kind = "number") -> None:
        self.code, self.name, self.kind = code, name, kind

    def __add__(self, other: Vec | float) -> Vec:
        return self.code.binary("add", self, other)

    def __radd__(self, other: float) -> Vec:
        return self.code.binary("add", other, self)

    def __sub__(self, other: Vec | float) -> Vec:
        return self.code.binary("sub", self, other)

    def __rsub__(self, other: float) -> Vec:
        return self.code.binary("sub", other, self)

    def __mul__(self, other: Vec | float) -> Vec:
        return self.code.binary("mul", self, other)

    def __rmul__(self, other: float) -> Vec:
        return self.code.binary("mul", other, self)

    def __truediv__(self, other: Vec | float) -> Vec:
        return self.code.binary("div", self, other)

    def __rtruediv__(self, other: float) -> Vec:
        return self.code.binary("div", other, self)

    def __neg__(self) -> Vec:
        return self.code.negate(self)

    def __ge__(self, other: Vec | float) -> Vec:
        return self.code.compare("ge", self, other)

    def __gt__(self, other: Vec | float) -> Vec:
        return self.code.compare("gt", self, other)

    def __le__(self, other: Vec | float) -> Vec:
        return self.code.compare("le", self, other)

    def __lt__(self, other: Vec | float) -> Vec:
        return self.code.compare("lt", self, other)

    def __and__(self, other: Vec) -> Vec:
        return self.code.logic("and", self, other)

    def __or__(self, other: Vec) -> Vec:
        return self.code.logic("or", self, other)


class Code(ABC):
    """The operations that rules use, all of them lane by lane."""

    @abstractmethod
    def exact(self) -> AbstractContextManager[None]:
        """Within the block nothing is fused or reordered, also where gradients may be."""

    @abstractmethod
    def as_vec(self, value: Vec | float) -> Vec:
        """A constant as a vector; vectors pass through."""

    @abstractmethod
    def binary(self, op: str, a: Vec | float, b: Vec | float) -> Vec:
        """Arithmetic on two values: ``"add"``, ``"sub"``, ``"mul"`` or ``"div"``."""

    @abstractmethod
    def negate(self, a: Vec) -> Vec:
        """``-a``."""

    @abstractmethod
    def compare(self, op: str, a: Vec, b: Vec | float) -> Vec:
        """Ordered comparison, ``"ge"``, ``"gt"``, ``"le"`` or ``"lt"``: false where either side is NaN."""

    @abstractmethod
    def logic(self, op: str, a: Vec, b: Vec) -> Vec:
        """``"and"`` or ``"or"`` of truth values."""

    @abstractmethod
    def where(self, mask: Vec, a: Vec | float, b: Vec | float) -> Vec:
        """``a`` where the mask holds, else ``b``."""

    @abstractmethod
    def select(self, mask: Vec, a: Vec, b: Vec) -> Vec:
        """`where` for integers."""

    @abstractmethod
    def call(self, function: str, *args: Vec | float) -> Vec:
        """``fabs``, ``floor``, ``rint``, ``copysign``, ``minnum`` or ``maxnum`` as in C's ``math.h``."""

    @abstractmethod
    def exp(self, a: Vec) -> Vec:
        """``e**a`` to about one unit in the last place, 0 below -87."""

    @abstractmethod
    def floor_log2_ratio(self, a: Vec, b: Vec) -> Vec:
        """``floor(log2(a / b))`` of positive numbers as integers, exactly."""

    @abstractmethod
    def lesser(self, a: Vec, b: Vec | int) -> Vec:
        """The smaller of two integers."""

    @abstractmethod
    def power_of_two(self, k: Vec) -> Vec:
        """``2.0**k`` of an integer from 0 to 127; 1 for negative ones."""

    def abs(self, a: Vec) -> Vec:
        """Absolute value."""
        return self.call("fabs", a)

    def sigmoid(self, a: Vec) -> Vec:
        """``1 / (1 + e**-a)``."""
        return 1.0 / (self.exp(-a) + 1.0)
