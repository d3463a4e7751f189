"""Training tasks for Lightning, their losses, metrics and callbacks."""

from lightning_modules.autoencoder_training import AutoencoderTask
from lightning_modules.base import BaseTask
from lightning_modules.callbacks import (
    CompressSpikes,
    Energy,
    FiringRate,
    RasterFigure,
    ResumableState,
    RunReport,
    TokenMaps,
)
from lightning_modules.classification import ClassificationTask
from lightning_modules.conversion.evaluate import Comparison, Point, compare
from lightning_modules.conversion.task import ConversionTask
from lightning_modules.dida import DiDATask
from lightning_modules.image_tokenizer import ImageTokenizerTask
from lightning_modules.latent_diffusion import LatentDiffusionTask
from lightning_modules.losses import mean_logit_loss, tet_loss
from lightning_modules.metrics import AccuracyOverTime, AgreementOverTime
from lightning_modules.multi_label import MultiLabelTask
from lightning_modules.next_token import NextTokenTask
from lightning_modules.proxy_target import ProxyTargetTask
from lightning_modules.regression import RegressionTask
from lightning_modules.segmentation import SegmentationTask
from lightning_modules.shortcut import ShortcutTask
from lightning_modules.spike_reconstruction import SpikeReconstructionTask

__all__ = [
    "AccuracyOverTime",
    "AgreementOverTime",
    "AutoencoderTask",
    "BaseTask",
    "ClassificationTask",
    "Comparison",
    "CompressSpikes",
    "ConversionTask",
    "DiDATask",
    "Energy",
    "FiringRate",
    "ImageTokenizerTask",
    "LatentDiffusionTask",
    "MultiLabelTask",
    "NextTokenTask",
    "Point",
    "ProxyTargetTask",
    "RasterFigure",
    "RegressionTask",
    "ResumableState",
    "RunReport",
    "SegmentationTask",
    "ShortcutTask",
    "SpikeReconstructionTask",
    "TokenMaps",
    "compare",
    "mean_logit_loss",
    "tet_loss",
]
