"""Training tasks for Lightning, their losses, metrics and callbacks."""

from lightning_modules.base import BaseTask
from lightning_modules.callbacks import Energy, FiringRate, RasterFigure, ResumableState, RunReport
from lightning_modules.classification import ClassificationTask
from lightning_modules.losses import mean_logit_loss, tet_loss
from lightning_modules.metrics import AccuracyOverTime
from lightning_modules.shortcut import ShortcutTask

__all__ = [
    "AccuracyOverTime",
    "BaseTask",
    "ClassificationTask",
    "Energy",
    "FiringRate",
    "RasterFigure",
    "ResumableState",
    "RunReport",
    "ShortcutTask",
    "mean_logit_loss",
    "tet_loss",
]
