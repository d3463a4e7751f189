"""Multi-label classification: any number of the K classes may be in an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch.nn import functional as F
from torchmetrics.classification import (
    MultilabelAveragePrecision,
    MultilabelExactMatch,
    MultilabelF1Score,
)
from typing_extensions import override

from lightning_modules.callbacks.predictions import LabelsTable, PredictionWriter
from lightning_modules.measured_task import MeasuredTask
from lightning_modules.step_metrics import StepMetrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import lightning.pytorch as pl
    from torch import Tensor


class MultiLabelTask(MeasuredTask):
    """Trains a network to say of each of K classes whether it is there, by binary cross-entropy.

    Targets are ``y [B, K]`` of 0 and 1.

    Args:
        model: see `ClassificationTask`, as for the next one.
        model_args: arguments of the network.
        num_classes: K; taken from the data on the command line.
        in_chans: C; taken from the data on the command line.
        threshold: probability from which on a class counts as there, in F1, exact matches and predictions.
        channels_last: lay images and weights out with channels innermost.
        **arguments: optimiser and schedule, see `BaseTask`.
    """

    task: ClassVar[str] = "multi-label"
    monitor: ClassVar[str] = "val/map"
    mode: ClassVar[Literal["min", "max"]] = "max"
    loss_name = "binary cross-entropy"
    curves: ClassVar[Mapping[str, Sequence[str]]] = {
        "loss": ("train/loss", "val/loss"),
        "mean average precision": ("val/map",),
    }

    def __init__(
        self,
        model: str | dict[str, Any],
        model_args: dict[str, Any] | None = None,
        num_classes: int = 10,
        in_chans: int = 3,
        threshold: float = 0.5,
        channels_last: bool = True,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {threshold!r}")
        self.save_hyperparameters()
        facts = {"num_classes": num_classes, "in_chans": in_chans}
        self.take_network(model, model_args, facts, channels_last=channels_last)
        self.threshold = threshold
        metrics = {
            "map": MultilabelAveragePrecision(num_classes),
            "f1": MultilabelF1Score(num_classes, threshold),
            "exact": MultilabelExactMatch(num_classes, threshold),
        }
        self.found = StepMetrics(metrics, torch.sigmoid)

    @override
    def targets(self, y: Tensor) -> Tensor:
        """Whole numbers, as the metrics take them; what is neither 0 nor 1 stays, to be refused."""
        return y.long() if bool(((y == 0) | (y == 1)).all()) else y

    @override
    def check_target(self, outputs: Tensor, target: Tensor) -> None:
        self.check_width(outputs.shape[-1], self.hparams["num_classes"], "labels")
        if target.shape != outputs.shape[1:] or not bool(((target == 0) | (target == 1)).all()):
            raise ValueError(
                f"the data hold targets {tuple(target.shape)}, but 0 or 1 is expected for each of the"
                f" {outputs.shape[-1]} classes: {tuple(outputs.shape[1:])}"
            )

    @override
    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Of the mean of the logits ``[T, B, K]`` over T."""
        return F.binary_cross_entropy_with_logits(outputs.mean(dim=0), target.to(outputs.dtype))

    @override
    def prediction_writer(self, output: Path, class_names: Sequence[str]) -> pl.Callback:
        return PredictionWriter(output, LabelsTable(class_names, self.threshold))
