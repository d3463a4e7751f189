"""What goes into a kernel and what comes back, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from spiking.kernels.rules.base import Family


class Operands(NamedTuple):
    """Tensors beside the currents ``[T, ...]``; None where a family has none or starts from rest.

    A tuple, since ``torch.autograd.Function`` and custom operators take tensors one by one.

    Attributes:
        v: first state before the first step ``[...]``.
        m: second state ``[...]``.
        rate: learnt reciprocal of the time constant, one value.
        k: learnt gain, one value.
        table: the parameters `Family.tabled` ``[n]``, or the numbers of LM-HT.
        coefficients: the parameters `Family.arrays` ``[n, P]`` float32, a column for each of P neurons.
        conductance: ``[T, P]`` float32, for rules that conduct.
    """

    v: Tensor | None = None
    m: Tensor | None = None
    rate: Tensor | None = None
    k: Tensor | None = None
    table: Tensor | None = None
    coefficients: Tensor | None = None
    conductance: Tensor | None = None


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


@dataclass(frozen=True)
class Launch:
    """Which kernel runs, and with which numbers.

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
