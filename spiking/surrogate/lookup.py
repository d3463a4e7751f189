"""Surrogates by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from spiking.arguments import nearest, only_known
from spiking.surrogate.asymmetric import S2NN, LeakyKReLU, LogTailedReLU, SquarewaveFourierSeries
from spiking.surrogate.base import Surrogate
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
        near = nearest(_plain(name), _BY_NAME, cutoff=0.5)
        hint = f"did you mean {_BY_NAME[near]!r}?" if near else f"known: {', '.join(list_surrogates())}"
        raise ValueError(f"unknown surrogate {name!r}; {hint}")
    cls = SURROGATES[key]
    only_known(key, parameters, [f.name for f in dataclasses.fields(cls) if f.init], "parameter")
    return cls(**parameters)
