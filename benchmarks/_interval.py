"""How sure a measured share is."""

from __future__ import annotations

import math


def interval(share: float, samples: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of a share that was seen on so many samples."""
    z = 1.96
    middle = (share + z**2 / (2 * samples)) / (1 + z**2 / samples)
    half = z * math.sqrt(share * (1 - share) / samples + z**2 / (4 * samples**2)) / (1 + z**2 / samples)
    return middle - half, min(middle + half, 1.0)
