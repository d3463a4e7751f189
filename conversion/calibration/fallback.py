"""What stands in for a threshold where the calibration images leave nothing to measure it by.

A signal can be 0 on all of them (a ReLU that is off, a branch whose last layer starts at zero), or so nearly
always that the share asked for is 0, or constant. That is no reason to give up a network: what is 0 on the
calibration images costs nothing there with any threshold above 0, and only other images need a scale.

* A signal that is not 0 everywhere: its largest magnitude, so that nothing which was seen is out of reach.
* An activation that is always off: the largest magnitude of its currents. They lie below 0, so the neuron
  stays silent on the calibration images, and a current of the other sign and as large is within reach.
* A signal of nothing but zeros: 1, the scale that norms give their signals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Magnitudes:
    """The largest magnitudes at a site so far.

    Attributes:
        signal: of what the source computes there.
        current: of what the source computes it from.
    """

    def __init__(self) -> None:
        self.signal, self.current = 0.0, 0.0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in the currents ``x [B, ...]`` of a batch and the signal ``y [B, ...]``."""
        self.signal = max(self.signal, float(y.abs().amax()))
        if not self.signal:
            self.current = max(self.current, float(x.abs().amax()))

    def stand_in(self) -> tuple[float, str]:
        """A threshold above 0, and in words what it is and why there is no measured one."""
        if self.signal:
            return (
                self.signal,
                f"{self.signal:.4g}, its largest magnitude, since the share asked for is not above 0",
            )
        if self.current:
            return (
                self.current,
                f"{self.current:.4g}, the largest magnitude of its currents, since it was always 0",
            )
        return 1.0, "1, since it was always 0"
