"""Callbacks that any task can take; moving averages of weights are Lightning's ``EMAWeightAveraging``."""

from lightning_modules.callbacks.compress_spikes import CompressSpikes
from lightning_modules.callbacks.energy import Energy
from lightning_modules.callbacks.firing_rate import FiringRate
from lightning_modules.callbacks.predictions import PredictionWriter
from lightning_modules.callbacks.raster import RasterFigure
from lightning_modules.callbacks.resumable_state import ResumableState
from lightning_modules.callbacks.run_report import RunReport
from lightning_modules.callbacks.token_maps import TokenMaps

__all__ = [
    "CompressSpikes",
    "Energy",
    "FiringRate",
    "PredictionWriter",
    "RasterFigure",
    "ResumableState",
    "RunReport",
    "TokenMaps",
]
