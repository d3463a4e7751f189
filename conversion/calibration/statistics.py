"""Thresholds from calibration images: the statistics of ECMT and DCGS.

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
