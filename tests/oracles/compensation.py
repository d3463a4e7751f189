"""Expectation compensation over whole sequences (ECMT, arXiv 2502.21193).

A function F of rate-coded signals must act on what they represent, their running means. Its steps are
``y_t = t F(m_t) - (t - 1) F(m_(t-1))``, so that ``mean(y_1..y_t) = F(mean(x_1..x_t))``. A converted
network keeps means between nonlinear operations and needs none of this; these are the units of the paper,
with steps in and out. The difference grows with t while its terms cancel, so everything is float32 at
least.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spiking.functional.codes import CodeState, increments, running_mean, step_numbers
from spiking.reference.neurons import state_dtype

if TYPE_CHECKING:
    from collections.abc import Callable

CompensationState = tuple[CodeState, ...]  # of each signal, then of the output
ProductState = tuple[int, Tensor, Tensor, Tensor]  # steps so far, sums of both factors, their product


def compensate(
    function: Callable[..., Tensor], *signals: Tensor, state: CompensationState | None = None
) -> tuple[Tensor, CompensationState]:
    """Steps whose running mean is ``function`` of the running means of ``signals``.

    >>> y, _ = compensate(torch.relu, torch.tensor([1.0, -3.0, 4.0]))
    >>> y.tolist()  # means 1, -1, 2/3 of the input; 1, 0, 2/3 of the output
    [1.0, -1.0, 2.0]

    Args:
        function: maps ``[T * B, ...]`` of each signal to ``[T * B, ...]``, sample by sample; steps of a
            signal without further axes count as samples.
        signals: ``[T, B, ...]`` each.
        state: as given by the call before.

    Returns:
        ``[T, B, ...]`` in the dtype of the first signal, and the state.
    """
    x = signals[0]
    befores = state if state is not None else (None,) * (len(signals) + 1)
    means, states = [], []
    for signal, before in zip(signals, befores[:-1], strict=True):
        mean, after = running_mean(signal.to(state_dtype(signal)), before)
        means.append(mean if mean.dim() < 2 else mean.flatten(0, 1))
        states.append(after)
    with torch.autocast(x.device.type, enabled=False):
        z = function(*means)
    z = z.reshape(*x.shape[:2], *z.shape[1:]) if x.dim() > 1 else z
    y, last = increments(z, befores[-1])
    return y.to(x.dtype), (*states, last)


def compensate_product(
    a: Tensor,
    b: Tensor,
    operation: Callable[[Tensor, Tensor], Tensor] = torch.matmul,
    state: ProductState | None = None,
) -> tuple[Tensor, ProductState]:
    """`compensate` of a product, so that one factor of each partial product is what was sent last.

    ``P_t = P_(t-1) + A_t B_t + A_t S_B + S_A B_t`` with the sums before step t, and
    ``y_t = P_t / t - P_(t-1) / (t - 1)``: where both factors are spikes, all products are additions.

    Args:
        a: ``[T, B, ..., M, K]``, or of the shape of ``b`` for an element-wise product.
        b: ``[T, B, ..., K, N]``.
        operation: linear in each factor.
        state: as given by the call before.

    Returns:
        ``[T, B, ..., M, N]`` in the dtype of ``a``, and the state.
    """
    wide = state_dtype(a)
    with torch.autocast(a.device.type, enabled=False):
        left, right = a.to(wide), b.to(wide)
        done, sum_a, sum_b, product = state if state is not None else (0, None, None, None)
        sums_a, sums_b = left.cumsum(0), right.cumsum(0)
        if sum_a is not None and sum_b is not None:
            sums_a, sums_b = sums_a + sum_a, sums_b + sum_b
        before_a, before_b = (_before(s, first) for s, first in ((sums_a, sum_a), (sums_b, sum_b)))
        added = operation(left, right) + operation(left, before_b) + operation(before_a, right)
        products = added.cumsum(0)
        if product is not None:
            products = products + product
        means = products / step_numbers(done, products)
        earlier = torch.zeros_like(means[:1]) if product is None else (product / done).unsqueeze(0)
        y = torch.diff(means, dim=0, prepend=earlier)
    return y.to(a.dtype), (done + a.shape[0], sums_a[-1], sums_b[-1], products[-1])


def _before(sums: Tensor, first: Tensor | None) -> Tensor:
    """Sums before each step."""
    head = torch.zeros_like(sums[:1]) if first is None else first.unsqueeze(0)
    return torch.cat([head, sums[:-1]])
