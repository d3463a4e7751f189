"""The tensors that go into a kernel beside the currents, by name."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

ORDINARY = (Tensor, nn.Parameter)  # types of tensors that kernels take; no subclasses: these may do more


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


NOTHING = Operands()  # of a neuron at rest that learns nothing
