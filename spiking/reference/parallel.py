"""Parallel spiking neurons: all steps in one product of matrices, no reset (2304.12760)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spiking.reference.firing import SIGMOID
from spiking.reference.neurons import state_dtype

if TYPE_CHECKING:
    from spiking.surrogate import Surrogate


def psn(x: Tensor, weight: Tensor, bias: Tensor, *, surrogate: Surrogate = SIGMOID) -> Tensor:
    """Parallel spiking neuron (2304.12760): ``S = H(weight X + bias)``, no reset, not causal.

    Args:
        x: currents ``[T, ...]``.
        weight: ``[T, T]``.
        bias: ``[T, 1]``, minus the thresholds.
        surrogate: slope of the step.
    """
    dtype = state_dtype(x)
    h = torch.addmm(bias.to(dtype), weight.to(dtype), x.to(dtype).flatten(1))
    return surrogate(h).view(x.shape).to(x.dtype)


def sliding_psn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    past: Tensor | None = None,
    *,
    surrogate: Surrogate = SIGMOID,
) -> tuple[Tensor, Tensor]:
    """Sliding parallel spiking neuron (2304.12760): ``h(t) = sum_i w[k-1-i] x(t-i) + b``.

    Args:
        x: currents ``[T, ...]``.
        weight: ``[k]``; the last one belongs to the current step.
        bias: ``[]``, minus the threshold.
        past: the ``k - 1`` currents before the first step, 0 if missing.
        surrogate: slope of the step.

    Returns:
        Spikes ``[T, ...]`` and the last ``k - 1`` currents.
    """
    dtype, k = state_dtype(x), weight.numel()
    if past is None:
        past = x.new_zeros((k - 1, *x.shape[1:]), dtype=dtype)
    window = torch.cat([past.to(dtype), x.to(dtype)])
    weight = weight.to(dtype)
    h = sum(weight[j] * window[j : j + x.shape[0]] for j in range(k)) + bias.to(dtype)
    return surrogate(h).to(x.dtype), window[window.shape[0] - (k - 1) :]
