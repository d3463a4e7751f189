"""When a neuron fires, and what becomes of its potential then: settings that most neurons share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from spiking.arguments import flag, number, shown
from spiking.surrogate import PiecewiseQuadratic, Sigmoid, Surrogate

SIGMOID = Sigmoid()
TRIANGLE = PiecewiseQuadratic()


@dataclass(frozen=True, kw_only=True)
class Firing:
    """Threshold, reset and surrogate.

    Attributes:
        v_threshold: fires at this potential and above.
        v_reset: potential after a spike; ``None`` subtracts the threshold.
        detach_reset: no gradient through the reset.
        surrogate: slope of the step.
    """

    v_threshold: float = 1.0
    v_reset: float | None = 0.0
    detach_reset: bool = False
    surrogate: Surrogate = SIGMOID

    def __post_init__(self) -> None:
        """Check the settings."""
        number("v_threshold", self.v_threshold, above=0.0)
        if self.v_reset is not None:
            number("v_reset", self.v_reset)
        flag("detach_reset", self.detach_reset)
        if not isinstance(self.surrogate, Surrogate):
            raise TypeError(
                f"surrogate must be a Surrogate (spiking.get_surrogate), got {shown(self.surrogate)}"
            )

    @property
    def rest(self) -> float:
        """The potential before the first step: ``v_reset``, or 0 if the threshold is subtracted."""
        return 0.0 if self.v_reset is None else self.v_reset


class FiringOptions(TypedDict, total=False):
    """`Firing` as keyword arguments; those that are left out have its defaults."""

    v_threshold: float
    v_reset: float | None
    detach_reset: bool
    surrogate: Surrogate
