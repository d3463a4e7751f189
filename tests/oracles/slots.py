"""Graded units in differential code, slot by slot as DCGS's code runs them (arXiv 2503.00301): an oracle.

A sequence has a slot 0 in front, in which the network's input is zero and every affine layer emits what
its bias makes of it. A unit emits nothing there, remembers the bias, and takes it off later. Between
represented values all of this is one call of the function, which is how `conversion` runs; these loops
say why that is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable


def graded(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A function of one signal: ``m = m + (x_t - b) / t``, ``y_t = t (F(m) - last)``.

    ``last`` starts at 0, not at ``F(b)``, so that the response to the bias comes at t = 1. Slot 0 of the
    output has the shape of the output, where the code gives zeros of the shape of the input.

    Args:
        function: ``[B, ...]`` -> ``[B, ...]``.
        x: ``[T + 1, B, ...]``.
    """
    bias, m = x[0], x[0]
    last = torch.zeros_like(function(m))
    out = [last]
    for t, x_t in enumerate(x[1:].unbind(0), 1):
        m = m + (x_t - bias) / t
        now = function(m)
        out.append(t * (now - last))
        last = now
    return torch.stack(out)


def graded_matmul(a: Tensor, b: Tensor) -> Tensor:
    """A matrix product of what neurons send, so that both have an empty slot 0.

    ``y_t = a_t B + A b_t + (a_t b_t) / t`` with the means before step t.

    Args:
        a: ``[T + 1, B, ..., M, K]``.
        b: ``[T + 1, B, ..., K, N]``.
    """
    mean_a, mean_b = a[0], b[0]
    out = [torch.zeros_like(a[0] @ b[0])]
    for t, (a_t, b_t) in enumerate(zip(a[1:].unbind(0), b[1:].unbind(0), strict=True), 1):
        out.append(a_t @ mean_b + mean_a @ b_t + (a_t @ b_t) / t)
        mean_a, mean_b = mean_a + a_t / t, mean_b + b_t / t
    return torch.stack(out)


def graded_mul(a: Tensor, b: Tensor) -> Tensor:
    """An element-wise product of two signals, each with its bias in slot 0.

    As `graded_matmul` of ``a_t - a_0`` and ``b_t - b_0``, except that step 1 takes the factors as they are,
    since there they contain the bias.

    Args:
        a: ``[T + 1, B, ...]``.
        b: ``[T + 1, B, ...]``.
    """
    mean_a, mean_b = a[1], b[1]
    out = [torch.zeros_like(a[0] * b[0]), a[1] * b[1]]
    for t, (a_t, b_t) in enumerate(zip(a[2:].unbind(0), b[2:].unbind(0), strict=True), 2):
        a_t, b_t = a_t - a[0], b_t - b[0]
        out.append(a_t * mean_b + mean_a * b_t + (a_t * b_t) / t)
        mean_a, mean_b = mean_a + a_t / t, mean_b + b_t / t
    return torch.stack(out)
