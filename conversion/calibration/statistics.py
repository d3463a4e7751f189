"""Thresholds from calibration images: the statistics of ECMT and DCGS, and DCGS's threshold iteration.

Everything is a statistic of one batch of activations ``x [B, ...]`` that the source network produces,
averaged over batches. What a threshold is shared by is its ``level``:

* ``"layer"``: one value;
* ``"channel"``: one for each index of axis 1: the channel of an image, but the *token* of ``[B, N, C]`` and
  the *head* of ``[B, h, N, d]``, which DCGS's published transformers use; it fixes the input size;
* ``"feature"``: one for each index of the last axis;
* ``"neuron"``: one for each neuron of a sample.

Shapes stay broadcastable to a batch, with axes of size 1. Sources: ECMT (2502.21193) and DCGS
(2503.00301), each as its published code has it, which calibrates on validation images; use training
images, and say how many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Level = Literal["layer", "channel", "feature", "neuron"]


# ---------------------------------------------------------------- statistics of one batch


def reduced_axes(level: Level, dimensions: int) -> tuple[int, ...]:
    """The axes over which a statistic of ``level`` is taken, for tensors ``[B, ...]`` of so many axes.

    Raises:
        ValueError: an unknown level, or one for which the tensor has too few axes.
    """
    kept = {"layer": (), "channel": (1,), "feature": (dimensions - 1,), "neuron": range(1, dimensions)}
    if level not in kept:
        raise ValueError(f"unknown level {level!r}; known: {', '.join(get_args(Level))}")
    if level != "layer" and dimensions < 2:
        raise ValueError(f"thresholds per {level} need activations [B, ...] with an axis behind the batch")
    return tuple(axis for axis in range(dimensions) if axis not in kept[level])


def quantile(x: Tensor, share: float, level: Level = "layer", *, magnitude: bool = False) -> Tensor:
    """The value that a share of all values does not exceed, linearly interpolated, as in DCGS.

    The signed quantile serves both signs of an identity neuron, and where it is negative it silences the
    neuron; ``magnitude`` takes that of the absolute values.

    Args:
        x: activations ``[B, ...]``.
        share: 0 to 1; 0.999 in DCGS.
        level: what a threshold is shared by.
        magnitude: whether signs count.
    """
    _check_share(share)
    x, axes = _prepared(x, magnitude), reduced_axes(level, x.dim())
    order = [*axes, *(axis for axis in range(x.dim()) if axis not in axes)]
    rows = x.permute(order).flatten(0, len(axes) - 1)
    shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    return torch.quantile(rows, share, dim=0).view(shape)


def maximum(x: Tensor, level: Level = "layer", *, magnitude: bool = False) -> Tensor:
    """The largest value; arguments as in `quantile`."""
    x = _prepared(x, magnitude)
    return x.amax(reduced_axes(level, x.dim()), keepdim=True)


def base_quantiles(x: Tensor, share: float = 0.99) -> Tensor:
    """ECMT's smallest thresholds ``[2]`` of a layer: p for the positive side, q for the negative one.

    p is the ``int(share * n)``-th smallest of all n values, q minus the ``int((1 - share) * n)``-th, counted
    from 1 and not interpolated; the products are those of binary floating point, as in the code. Where n is
    so small that a rank is 0, the code fails; here the smallest value is taken. A signal without negative
    values gives q of at most 0, see `spiking.Levels.smallest`.

    Args:
        x: activations ``[B, ...]``.
        share: ``percent`` of the code.
    """
    _check_share(share)
    values, n = _prepared(x, False).flatten(), x.numel()
    high, low = (max(1, int(part * n)) for part in (share, 1 - share))
    return torch.stack([values.kthvalue(high).values, -values.kthvalue(low).values])


def _prepared(x: Tensor, magnitude: bool) -> Tensor:
    if not x.numel():
        raise ValueError(f"no activations to take a statistic of: {tuple(x.shape)}")
    x = x.detach()
    x = x if x.dtype in (torch.float32, torch.float64) else x.float()
    return x.abs() if magnitude else x


def _check_share(share: float) -> None:
    if not 0.0 < share <= 1.0:
        raise ValueError(f"a share must lie above 0 and at most at 1, got {share!r}")


# ---------------------------------------------------------------- over batches


@dataclass
class Average:
    """The running average of a statistic.

    Attributes:
        value: so far; None before the first batch.
        weight: of all batches so far.
    """

    value: Tensor | None = None
    weight: float = 0.0

    def add(self, value: Tensor, weight: float = 1.0) -> None:
        """Take in a batch: with weight 1 whatever its size (ECMT), or with its size as weight (DCGS)."""
        self.weight += weight
        self.value = (
            value if self.value is None else self.value + (value - self.value) * (weight / self.weight)
        )


@dataclass
class Moments:
    """Mean and population variance over all batches, merged exactly.

    Attributes:
        level: what they are shared by.
        images: how many were seen.
        mean: so far; None before the first batch.
        var: so far.
    """

    level: Level = "channel"
    images: int = 0
    mean: Tensor | None = None
    var: Tensor | None = None

    def add(self, x: Tensor) -> None:
        """Take in the activations ``[B, ...]`` of a batch."""
        x = _prepared(x, False)
        axes = reduced_axes(self.level, x.dim())
        mean = x.mean(axes, keepdim=True)
        self.merge(Moments(self.level, x.shape[0], mean, x.var(axes, correction=0, keepdim=True)))

    def merge(self, other: Moments) -> None:
        """Take in what others saw, such as another process."""
        if other.mean is None or other.var is None:
            return
        if self.mean is None or self.var is None:
            self.images, self.mean, self.var = other.images, other.mean, other.var
            return
        self.images += other.images
        w, apart = other.images / self.images, other.mean - self.mean
        self.mean = self.mean + w * apart
        self.var = (1 - w) * self.var + w * (other.var + (1 - w) * apart**2)


# ---------------------------------------------------------------- threshold iteration


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
