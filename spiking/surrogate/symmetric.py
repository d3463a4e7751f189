"""Surrogates whose slope is the same on both sides of the threshold and falls off from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from spiking.surrogate.base import Surrogate

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Rect(Surrogate):
    """Rectangle of width ``1 / alpha`` and height ``alpha``; the edges are outside."""

    alpha: float = 1.0

    def derivative(self, x: Tensor) -> Tensor:
        """``alpha`` where ``|x| < 0.5 / alpha``."""
        return (x.abs() < 0.5 / self.alpha).to(x) * self.alpha

    def primitive(self, x: Tensor) -> Tensor:
        """A ramp."""
        return (self.alpha * x + 0.5).clamp(0.0, 1.0)


@dataclass(frozen=True)
class PiecewiseQuadratic(Surrogate):
    """Triangle of half-width ``1 / alpha`` and height ``alpha``; the edges are inside."""

    alpha: float = 1.0

    def derivative(self, x: Tensor) -> Tensor:
        """``alpha - alpha^2 |x|`` where that is not negative."""
        a = x.abs()
        return torch.where(a <= 1.0 / self.alpha, self.alpha - self.alpha**2 * a, torch.zeros_like(x))

    def primitive(self, x: Tensor) -> Tensor:
        """Two parabolas."""
        c = x.clamp(-1.0 / self.alpha, 1.0 / self.alpha)
        return -0.5 * self.alpha**2 * c.abs() * c + self.alpha * c + 0.5


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """Logistic curve."""

    alpha: float = 4.0

    def derivative(self, x: Tensor) -> Tensor:
        """``alpha sig(alpha x) (1 - sig(alpha x))``."""
        s = torch.sigmoid(self.alpha * x)
        return self.alpha * s * (1.0 - s)

    def primitive(self, x: Tensor) -> Tensor:
        """``sig(alpha x)``."""
        return torch.sigmoid(self.alpha * x)


@dataclass(frozen=True)
class ATan(Surrogate):
    """Arc tangent."""

    alpha: float = 2.0

    def derivative(self, x: Tensor) -> Tensor:
        """``(alpha / 2) / (1 + (pi / 2 alpha x)^2)``."""
        return self.alpha / 2 / (1.0 + (math.pi / 2 * self.alpha * x).square())

    def primitive(self, x: Tensor) -> Tensor:
        """``atan(pi / 2 alpha x) / pi + 1 / 2``."""
        return (math.pi / 2 * self.alpha * x).atan() / math.pi + 0.5


@dataclass(frozen=True)
class Erf(Surrogate):
    """Gaussian bell of variance ``1 / (2 alpha^2)``."""

    alpha: float = 2.0

    def derivative(self, x: Tensor) -> Tensor:
        """``alpha / sqrt(pi) e^(-(alpha x)^2)``."""
        return self.alpha / math.sqrt(math.pi) * torch.exp(-(self.alpha * x).square())

    def primitive(self, x: Tensor) -> Tensor:
        """``erfc(-alpha x) / 2``."""
        return 0.5 * torch.erfc(-self.alpha * x)


@dataclass(frozen=True)
class PiecewiseExp(Surrogate):
    """Two-sided exponential."""

    alpha: float = 1.0

    def derivative(self, x: Tensor) -> Tensor:
        """``alpha / 2 e^(-alpha |x|)``."""
        return self.alpha / 2 * torch.exp(-self.alpha * x.abs())

    def primitive(self, x: Tensor) -> Tensor:
        """Cumulated from the left."""
        tail = 0.5 * torch.exp(-self.alpha * x.abs())
        return torch.where(x < 0, tail, 1.0 - tail)


@dataclass(frozen=True)
class SoftSign(Surrogate):
    """Slope of the soft sign."""

    alpha: float = 2.0

    def derivative(self, x: Tensor) -> Tensor:
        """``1 / (2 alpha (1 / alpha + |x|)^2)``."""
        return 1.0 / (2.0 * self.alpha * (1.0 / self.alpha + x.abs()).square())

    def primitive(self, x: Tensor) -> Tensor:
        """``(alpha x / (1 + |alpha x|) + 1) / 2``."""
        return 0.5 * (F.softsign(self.alpha * x) + 1.0)


@dataclass(frozen=True)
class SuperSpike(Surrogate):
    """Slope of SuperSpike (1705.11146)."""

    alpha: float = 1.0

    def derivative(self, x: Tensor) -> Tensor:
        """``alpha / (1 + |x|)^2``."""
        return self.alpha / (1.0 + x.abs()).square()


@dataclass(frozen=True)
class PiecewiseLeakyReLU(Surrogate):
    """Rectangle of half-width ``w`` over a floor ``c``."""

    may_vanish: ClassVar[frozenset[str]] = frozenset({"c"})

    w: float = 1.0
    c: float = 0.01

    def derivative(self, x: Tensor) -> Tensor:
        """``1 / (2 w)`` where ``|x| < w``, else ``c``."""
        return torch.where(x.abs() < self.w, torch.full_like(x, 0.5 / self.w), torch.full_like(x, self.c))

    def primitive(self, x: Tensor) -> Tensor:
        """Three straight pieces."""
        outside = torch.where(x < 0, self.c * (x + self.w), self.c * (x - self.w) + 1.0)
        return torch.where(x.abs() <= self.w, x / (2.0 * self.w) + 0.5, outside)


@dataclass(frozen=True)
class NonzeroSignLogAbs(Surrogate):
    """Slope of a signed logarithm."""

    alpha: float = 1.0

    def derivative(self, x: Tensor) -> Tensor:
        """``1 / (1 / alpha + |x|)``."""
        return 1.0 / (1.0 / self.alpha + x.abs())

    def primitive(self, x: Tensor) -> Tensor:
        """``+-log(|alpha x| + 1)``."""
        return torch.log1p((self.alpha * x).abs()) * torch.where(x < 0, -1.0, 1.0).to(x)


@dataclass(frozen=True)
class QPseudoSpike(Surrogate):
    """Power law with tail exponent ``alpha``, above 1: else the base of the power becomes negative."""

    above: ClassVar[Mapping[str, float]] = {"alpha": 1.0}

    alpha: float = 2.0

    def derivative(self, x: Tensor) -> Tensor:
        """``(1 + 2 / (alpha - 1) |x|)^(-alpha)``."""
        return (1.0 + 2.0 / (self.alpha - 1.0) * x.abs()).pow(-self.alpha)

    def primitive(self, x: Tensor) -> Tensor:
        """Cumulated from the left."""
        tail = 0.5 * (1.0 + 2.0 / (self.alpha - 1.0) * x.abs()).pow(1.0 - self.alpha)
        return torch.where(x < 0, tail, 1.0 - tail)


@dataclass(frozen=True)
class FakeNumericalGradient(Surrogate):
    """``1 / |x|``, at most ``alpha``."""

    alpha: float = 0.3

    def derivative(self, x: Tensor) -> Tensor:
        """``min(1 / |x|, alpha)``."""
        return (1.0 / x.abs()).clamp(max=self.alpha)
