"""Thresholds from calibration images: the statistics of ECMT and DCGS, and DCGS's threshold iteration."""

from conversion.calibration.statistics import (
    Average,
    Level,
    Moments,
    base_quantiles,
    maximum,
    quantile,
    reduced_axes,
)
from conversion.calibration.threshold_iteration import (
    best_threshold,
    iterated_threshold,
    quantisation_levels,
    scale_factor,
)

__all__ = [
    "Average",
    "Level",
    "Moments",
    "base_quantiles",
    "best_threshold",
    "iterated_threshold",
    "maximum",
    "quantile",
    "quantisation_levels",
    "reduced_axes",
    "scale_factor",
]
