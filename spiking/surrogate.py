"""Surrogate gradients: a step forward, a smooth slope backward.

A surrogate is a small frozen object. Called on ``x = h - v_threshold`` it gives 1 where ``x >= 0`` and 0
elsewhere; in the backward pass the gradient is multiplied by `derivative`. With ``spiking=False`` the call
gives the smooth `primitive` instead, whose true derivative is `derivative`: what gradient checks need.
Formulas and default values are those of STBP (1706.02609) and SpikingJelly.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class _Step(torch.autograd.Function):
    """Heaviside forward, the surrogate's derivative backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, surrogate: Surrogate) -> Tensor:
        return (x >= 0).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Surrogate], output: Tensor) -> None:
        x, ctx.surrogate = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate.derivative(x), None


@dataclass(frozen=True)
class Surrogate:
    """Base class.

    Attributes:
        spiking: ``False`` makes a call return the smooth primitive instead of the step.
    """

    spiking: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        """Check the parameters."""
        own = self.parameters()
        for name, value in own.items():
            if not math.isfinite(value):
                raise ValueError(f"{type(self).__name__}: {name} must be finite, got {value!r}")
        if self._positive and any(own[name] <= 0 for name in self._positive):
            raise ValueError(f"{type(self).__name__}: {', '.join(self._positive)} must be > 0, got {own}")

    @property
    def _positive(self) -> tuple[str, ...]:
        return ("alpha",) if "alpha" in self.parameters() else ()

    def parameters(self) -> dict[str, float]:
        """The numbers of the formula, by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "spiking"}

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` of any shape -> spikes of the same shape and dtype."""
        if not self.spiking:
            return self.primitive(x)
        if torch.compiler.is_exporting():  # a graph for inference needs no surrogate
            return (x >= 0).to(x.dtype)
        spikes: Tensor = _Step.apply(x, self)
        return spikes

    def derivative(self, x: Tensor) -> Tensor:
        """Slope at ``x``, elementwise."""
        raise NotImplementedError

    def primitive(self, x: Tensor) -> Tensor:
        """Smooth function whose derivative is `derivative`.

        Raises:
            NotImplementedError: for the surrogates that are defined by their slope alone.
        """
        raise NotImplementedError(f"{type(self).__name__} is defined by its slope and has no primitive")


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

    w: float = 1.0
    c: float = 0.01

    @property
    def _positive(self) -> tuple[str, ...]:
        return ("w",)

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
class SquarewaveFourierSeries(Surrogate):
    """First ``n - 1`` harmonics of a square wave of period ``T_period``."""

    n: int = 2
    T_period: float = 8.0

    def __post_init__(self) -> None:
        """Check the number of harmonics."""
        if not isinstance(self.n, int) or self.n < 2:
            raise ValueError(f"SquarewaveFourierSeries: n must be an integer of at least 2, got {self.n!r}")
        super().__post_init__()

    @property
    def _positive(self) -> tuple[str, ...]:
        return ("T_period",)

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
class QPseudoSpike(Surrogate):
    """Power law with tail exponent ``alpha``."""

    alpha: float = 2.0

    def __post_init__(self) -> None:
        """Check the exponent."""
        if self.alpha == 1.0:
            raise ValueError("QPseudoSpike: alpha must not be 1")
        super().__post_init__()

    def derivative(self, x: Tensor) -> Tensor:
        """``(1 + 2 / (alpha - 1) |x|)^(-alpha)``."""
        return (1.0 + 2.0 / (self.alpha - 1.0) * x.abs()).pow(-self.alpha)

    def primitive(self, x: Tensor) -> Tensor:
        """Cumulated from the left."""
        tail = 0.5 * (1.0 + 2.0 / (self.alpha - 1.0) * x.abs()).pow(1.0 - self.alpha)
        return torch.where(x < 0, tail, 1.0 - tail)


@dataclass(frozen=True)
class LeakyKReLU(Surrogate):
    """Slope ``k`` above the threshold, ``leak`` below it."""

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

    alpha: float = 0.0

    @property
    def _positive(self) -> tuple[str, ...]:
        return ()

    def derivative(self, x: Tensor) -> Tensor:
        """``alpha`` for ``x <= 0``, 1 up to ``x = 1``, ``1 / x`` beyond."""
        return torch.where(x <= 0, torch.full_like(x, self.alpha), 1.0 / x.clamp(min=1.0))

    def primitive(self, x: Tensor) -> Tensor:
        """Line, line, logarithm."""
        tail = torch.where(x <= 1, x, x.clamp(min=1.0).log() + 1.0)
        return torch.where(x <= 0, self.alpha * x, tail)


@dataclass(frozen=True)
class FakeNumericalGradient(Surrogate):
    """``1 / |x|``, at most ``alpha``."""

    alpha: float = 0.3

    def derivative(self, x: Tensor) -> Tensor:
        """``min(1 / |x|, alpha)``."""
        return (1.0 / x.abs()).clamp(max=self.alpha)


SURROGATES: dict[str, type[Surrogate]] = {
    cls.__name__: cls
    for cls in (
        Rect,
        PiecewiseQuadratic,
        Sigmoid,
        ATan,
        Erf,
        PiecewiseExp,
        SoftSign,
        SuperSpike,
        PiecewiseLeakyReLU,
        NonzeroSignLogAbs,
        SquarewaveFourierSeries,
        S2NN,
        QPseudoSpike,
        LeakyKReLU,
        LogTailedReLU,
        FakeNumericalGradient,
    )
}
_ALIASES = {
    "rectangle": "Rect",
    "rectangular": "Rect",
    "triangle": "PiecewiseQuadratic",
    "triangular": "PiecewiseQuadratic",
    "arctan": "ATan",
    "gaussian": "Erf",
    "fastsigmoid": "SoftSign",
}


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


_BY_NAME = {_plain(name): name for name in SURROGATES} | _ALIASES


def list_surrogates() -> list[str]:
    """Names of all surrogates, sorted."""
    return sorted(SURROGATES)


def get_surrogate(name: str | Surrogate, **parameters: Any) -> Surrogate:
    """A surrogate by name; an object passes through.

    Args:
        name: class name in any case, with or without ``_``, or an alias (``"triangle"``, ...).
        parameters: of the class, e.g. ``alpha``.

    Raises:
        ValueError: unknown name or impossible parameter.
        TypeError: parameters beside an object, or one that the class does not have.
    """
    if isinstance(name, Surrogate):
        if parameters:
            raise TypeError(f"{name} is complete; got {parameters} besides")
        return name
    if not isinstance(name, str):
        raise TypeError(f"surrogate must be a name or a Surrogate, got {type(name).__name__}")
    key = _BY_NAME.get(_plain(name))
    if key is None:
        near = difflib.get_close_matches(_plain(name), _BY_NAME, n=1, cutoff=0.5)
        hint = f"did you mean {_BY_NAME[near[0]]!r}?" if near else f"known: {', '.join(list_surrogates())}"
        raise ValueError(f"unknown surrogate {name!r}; {hint}")
    cls = SURROGATES[key]
    known = [f.name for f in dataclasses.fields(cls) if f.init]
    for parameter in parameters:
        if parameter not in known:
            raise TypeError(f"{key} has no parameter {parameter!r}; it takes {', '.join(known)}")
    return cls(**parameters)
