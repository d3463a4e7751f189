"""What is run, and what its backward pass gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from spiking.kernels.rules.base import Family


class Gradients(NamedTuple):
    """Gradients of the currents and of `Operands`; None where there is no such tensor or gradient."""

    x: Tensor | None
    v: Tensor | None = None
    m: Tensor | None = None
    rate: Tensor | None = None
    k: Tensor | None = None
    table: Tensor | None = None
    coefficients: Tensor | None = None
    conductance: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Launch:
    """Which kernel runs, and with which numbers; itself and no other, so that it can be looked up quickly.

    Attributes:
        rule: the equations.
        engine: ``"cpu"`` or ``"triton"``.
        keep: whether the states after the last step are wanted.
        params: fixed values of `Family.names`; those that are learnt or come in a table may be missing.
    """

    rule: Family
    engine: str
    keep: bool
    params: Mapping[str, float] = field(default_factory=dict)
