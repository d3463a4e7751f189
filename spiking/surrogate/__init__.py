"""Surrogate gradients: a step forward, a smooth slope backward.

A surrogate is a small frozen object. Called on ``x = h - v_threshold`` it gives 1 where ``x >= 0`` and 0
elsewhere; in the backward pass the gradient is multiplied by `derivative`. With ``spiking=False`` the call
gives the smooth `primitive` instead, whose true derivative is `derivative`: what gradient checks need.
Formulas and default values are those of STBP (1706.02609) and SpikingJelly.
"""

from spiking.surrogate.asymmetric import S2NN, LeakyKReLU, LogTailedReLU, SquarewaveFourierSeries
from spiking.surrogate.base import Surrogate
from spiking.surrogate.lookup import SURROGATES, get_surrogate, list_surrogates
from spiking.surrogate.symmetric import (
    ATan,
    Erf,
    FakeNumericalGradient,
    NonzeroSignLogAbs,
    PiecewiseExp,
    PiecewiseLeakyReLU,
    PiecewiseQuadratic,
    QPseudoSpike,
    Rect,
    Sigmoid,
    SoftSign,
    SuperSpike,
)

__all__ = [
    "S2NN",
    "SURROGATES",
    "ATan",
    "Erf",
    "FakeNumericalGradient",
    "LeakyKReLU",
    "LogTailedReLU",
    "NonzeroSignLogAbs",
    "PiecewiseExp",
    "PiecewiseLeakyReLU",
    "PiecewiseQuadratic",
    "QPseudoSpike",
    "Rect",
    "Sigmoid",
    "SoftSign",
    "SquarewaveFourierSeries",
    "SuperSpike",
    "Surrogate",
    "get_surrogate",
    "list_surrogates",
]
