"""Surrogates whose slope differs between the sides of the threshold, or repeats."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from spiking.arguments import shown
from spiking.surrogate.base import Surrogate

MAX_HARMONICS = 1000  # each costs a pass over the currents


@dataclass(frozen=True)
class SquarewaveFourierSeries(Surrogate):
    """First ``n - 1`` harmonics of a square wave of period ``T_period``."""

    n: int = 2
    T_period: float = 8.0

    def __post_init__(self) -> None:
        """Check the number of harmonics."""
        if isinstance(self.n, bool) or not isinstance(self.n, int) or not 2 <= self.n <= MAX_HARMONICS:
            raise ValueError(
                f"SquarewaveFourierSeries: n must be an integer from 2 to {MAX_HARMONICS},"
                f" got {shown(self.n)}"
            )
        super().__post_init__()

    def derivative(self, x: Tensor) -> Tensor:
        """``4 / T_period sum_i cos((2 i - 1) 2 pi x / T_period)``."""
        w = 2.0 * math.pi / self.T_period
        out = torch.zeros_like(x)
        for i in range(1, self.n):
            out = out + torch.cos((2 * i - 1) * w * x)
        return out * (4.0 / self.T_period)

    def primitive(self, x: Tensor) -> Tensor:
        """The wave itself, moved to [0, 1]."""
        w = 2.0 * math.pi / self.T_period
        out = torch.zeros_like(x)
        for i in range(1, self.n):
            out = out + torch.sin((2 * i - 1) * w * x) / (2 * i - 1)
        return 0.5 + 2.0 / math.pi * out


@dataclass(frozen=True)
class S2NN(Surrogate):
    """Sigmoid below the threshold, logarithm above it."""

    alpha: float = 4.0
    beta: float = 1.0

    def derivative(self, x: Tensor) -> Tensor:
        """``alpha sig (1 - sig)`` for ``x < 0``, ``beta / (x + 1)`` else."""
        s = torch.sigmoid(self.alpha * x)
        return torch.where(x < 0, self.alpha * s * (1.0 - s), self.beta / (x.abs() + 1.0))

    def primitive(self, x: Tensor) -> Tensor:
        """Both curves meet in 1/2."""
        above = self.beta * torch.log1p(x.clamp(min=0.0)) + 0.5
        return torch.where(x < 0, torch.sigmoid(self.alpha * x), above)


@dataclass(frozen=True)
class LeakyKReLU(Surrogate):
    """Slope ``k`` above the threshold, ``leak`` below it."""

    may_vanish: ClassVar[frozenset[str]] = frozenset({"leak", "k"})

    leak: float = 0.0
    k: float = 1.0

    def derivative(self, x: Tensor) -> Tensor:
        """``k`` or ``leak``."""
        return torch.where(x >= 0, torch.full_like(x, self.k), torch.full_like(x, self.leak))

    def primitive(self, x: Tensor) -> Tensor:
        """Two straight pieces."""
        return torch.where(x >= 0, self.k * x, self.leak * x)


@dataclass(frozen=True)
class LogTailedReLU(Surrogate):
    """Rectified line with a logarithmic tail."""

    may_vanish: ClassVar[frozenset[str]] = frozenset({"alpha"})

    alpha: float = 0.0

    def derivative(self, x: Tensor) -> Tensor:
        """``alpha`` for ``x <= 0``, 1 up to ``x = 1``, ``1 / x`` beyond."""
        return torch.where(x <= 0, torch.full_like(x, self.alpha), 1.0 / x.clamp(min=1.0))

    def primitive(self, x: Tensor) -> Tensor:
        """Line, line, logarithm."""
        tail = torch.where(x <= 1, x, x.clamp(min=1.0).log() + 1.0)
        return torch.where(x <= 0, self.alpha * x, tail)
