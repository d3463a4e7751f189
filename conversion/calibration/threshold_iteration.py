"""DCGS's threshold iteration: the best threshold of a ReLU from mean and variance (arXiv 2503.00301)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def quantisation_levels(time_steps: int, n: int | None = None) -> int:
    """Values that a neuron can represent after T steps: ``T 2**n`` with n thresholds, T for a single one.

    Args:
        time_steps: T.
        n: thresholds of a multi-threshold neuron, None for integrate-and-fire.
    """
    return time_steps if n is None else time_steps * 2**n


def scale_factor(theta: Tensor, mean: Tensor, var: Tensor, levels: int) -> Tensor:
    """``k``, by which the threshold of a quantised ReLU is multiplied in an update (DCGS).

    For pre-activations of a normal distribution the quantised ReLU is
    ``f(x) = (theta / n) clip(floor(n x / theta + 1/2), 0, n)``; k is the scale of f, its partition kept, with
    the least squared error to ReLU, ``E[x f] / E[f^2]``. It is above 1 for a theta below the best one, and
    below 1 above it. NaN where so little fires that the code's ``1 - sum(erf)`` rounds to 0.

    Args:
        theta: threshold ``[...]``, above 0.
        mean: of the pre-activations ``[...]``.
        var: of the pre-activations ``[...]``.
        levels: n.
    """
    correlation, power = _moments_of_quantised(theta, mean, var, levels)
    lost = power < torch.finfo(power.dtype).eps / 2
    return torch.where(lost, torch.full_like(power, torch.nan), correlation / power)


def _moments_of_quantised(theta: Tensor, mean: Tensor, var: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """``E[x f]`` and ``E[f^2]``, both by ``theta^2 / 2``; with erfc, since ``1 - erf`` cancels in float32."""
    std = var.sqrt()
    odd = 2 * torch.arange(1, levels + 1, device=theta.device, dtype=theta.dtype) - 1
    odd = odd.view(-1, *(1,) * theta.dim())
    z = (odd * theta / (2 * levels) - mean) / (math.sqrt(2) * std)
    tails = torch.erfc(z)
    drift = (mean / theta) * tails.sum(0) / levels
    spread = (std / theta) * math.sqrt(2 / math.pi) * torch.exp(-(z**2)).sum(0) / levels
    return drift + spread, (odd / levels**2 * tails).sum(0)


def iterated_threshold(
    mean: Tensor, var: Tensor, levels: int, *, updates: int = 100, start: float = 1.0
) -> Tensor:
    """DCGS's threshold of a ReLU as its code finds it: ``updates`` times ``theta = k theta`` from ``start``.

    Channels that never fire end as NaN and become 1. The numbers are those of the dtype of ``mean``, float32
    in the code, where rounding moves channels that hardly fire by up to a per cent. A hundred updates are far
    from the fixed point unless ``levels`` is small, and published accuracies rest on them; `best_threshold`
    is the fixed point.

    Args:
        mean: of the pre-activations ``[...]``.
        var: of the pre-activations ``[...]``.
        levels: see `quantisation_levels`.
        updates: how many.
        start: first threshold.
    """
    theta = torch.full_like(mean, start)
    for _ in range(updates):
        theta = theta * scale_factor(theta, mean, var, levels)
    return torch.where(theta.isnan(), torch.ones_like(theta), theta)


def best_threshold(mean: Tensor, var: Tensor, levels: int, *, steps: int = 48) -> Tensor:
    """The fixed point of `iterated_threshold`, in float64 by bisection on ``log theta`` of ``k = 1``.

    An experiment: multi-threshold neurons do not reach ``T 2**n`` equal steps, for which this is best.
    Without variance it is the mean. Channels that never fire, more than 12 standard deviations below 0, get
    1, as in the code.

    Args:
        mean: of the pre-activations ``[...]``.
        var: of the pre-activations ``[...]``.
        levels: see `quantisation_levels`.
        steps: halvings of the interval.

    Returns:
        ``[...]`` in the dtype of ``mean``.
    """
    mu, variance = mean.double(), var.double()
    still = variance <= 0
    variance = torch.where(still, torch.ones_like(variance), variance)
    std, one = variance.sqrt(), torch.ones_like(mu)
    low, high = (std * 1e-6).log(), (mu.abs() + std * 40).log() + math.log(2)
    for _ in range(steps):
        middle = (low + high) / 2
        correlation, power = _moments_of_quantised(middle.exp(), mu, variance, levels)
        rising = correlation > power
        low, high = torch.where(rising, middle, low), torch.where(rising, high, middle)
    theta = torch.where(mu < -12 * std, one, ((low + high) / 2).exp())
    theta = torch.where(still, torch.where(mu > 0, mu, one), theta)
    return theta.to(mean.dtype)
