"""The derivatives of the surrogates as vector formulas; `spiking.surrogate` defines them on tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from spiking import surrogate as defined
from spiking.kernels.rules.expressions import Code, Vec


def slope(c: Code, u: Vec, surrogate: defined.Surrogate) -> Vec:
    """The derivative of ``surrogate`` at ``u``, the distance to the threshold."""
    return FORMULAS[type(surrogate)](c, u, surrogate)


def has_formula(surrogate: defined.Surrogate) -> bool:
    """Whether kernels know the derivative; no kernel computes the smooth primitive."""
    return surrogate.spiking and type(surrogate) in FORMULAS


def _rect(c: Code, u: Vec, s: defined.Rect) -> Vec:
    return c.where(c.abs(u) < 0.5 / s.alpha, s.alpha, 0.0)


def _triangle(c: Code, u: Vec, s: defined.PiecewiseQuadratic) -> Vec:
    a = c.abs(u)
    return c.where(a <= 1.0 / s.alpha, s.alpha - a * s.alpha**2, 0.0)


def _bell(c: Code, u: Vec, alpha: float) -> Vec:
    """``alpha sig (1 - sig)`` from ``e**-|alpha u|``: one division, no cancellation."""
    z = c.exp(-(c.abs(u) * abs(alpha)))
    one = z + 1.0
    return z * alpha / (one * one)


def _sigmoid(c: Code, u: Vec, s: defined.Sigmoid) -> Vec:
    return _bell(c, u, s.alpha)


def _atan(c: Code, u: Vec, s: defined.ATan) -> Vec:
    half = s.alpha / 2
    k = (math.pi * half) ** 2
    return half / (u * u * k + 1.0)


def _erf(c: Code, u: Vec, s: defined.Erf) -> Vec:
    alpha = s.alpha
    return c.exp(-(u * u * alpha**2)) * (alpha / math.sqrt(math.pi))


def _piecewise_exp(c: Code, u: Vec, s: defined.PiecewiseExp) -> Vec:
    alpha = s.alpha
    return c.exp(-(c.abs(u) * alpha)) * (alpha / 2)


def _soft_sign(c: Code, u: Vec, s: defined.SoftSign) -> Vec:
    alpha = s.alpha
    one = c.abs(u) * alpha + 1.0
    return (alpha / 2) / (one * one)


def _super_spike(c: Code, u: Vec, s: defined.SuperSpike) -> Vec:
    alpha = s.alpha
    one = c.abs(u) + 1.0
    return alpha / (one * one)


def _leaky_relu(c: Code, u: Vec, s: defined.PiecewiseLeakyReLU) -> Vec:
    return c.where(c.abs(u) < s.w, 1.0 / (2.0 * s.w), s.c)


def _sign_log(c: Code, u: Vec, s: defined.NonzeroSignLogAbs) -> Vec:
    edge = 1.0 / s.alpha
    return 1.0 / (c.abs(u) + edge)


def _s2nn(c: Code, u: Vec, s: defined.S2NN) -> Vec:
    return c.where(u < 0.0, _bell(c, u, s.alpha), s.beta / (c.abs(u) + 1.0))


def _leaky_k_relu(c: Code, u: Vec, s: defined.LeakyKReLU) -> Vec:
    return c.where(u >= 0.0, s.k, s.leak)


def _log_tailed(c: Code, u: Vec, s: defined.LogTailedReLU) -> Vec:
    return c.where(u <= 0.0, s.alpha, 1.0 / c.call("maxnum", u, 1.0))


def _fake(c: Code, u: Vec, s: defined.FakeNumericalGradient) -> Vec:
    return c.call("minnum", 1.0 / c.abs(u), s.alpha)


FORMULAS: dict[type[defined.Surrogate], Callable[[Code, Vec, Any], Vec]] = {
    defined.Rect: _rect,
    defined.PiecewiseQuadratic: _triangle,
    defined.Sigmoid: _sigmoid,
    defined.ATan: _atan,
    defined.Erf: _erf,
    defined.PiecewiseExp: _piecewise_exp,
    defined.SoftSign: _soft_sign,
    defined.SuperSpike: _super_spike,
    defined.PiecewiseLeakyReLU: _leaky_relu,
    defined.NonzeroSignLogAbs: _sign_log,
    defined.S2NN: _s2nn,
    defined.LeakyKReLU: _leaky_k_relu,
    defined.LogTailedReLU: _log_tailed,
    defined.FakeNumericalGradient: _fake,
}
