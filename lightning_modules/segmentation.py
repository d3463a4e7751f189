"""Segmentation: a class for every pixel.

Axes: T time, B batch, K classes, H W map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
from typing_extensions import override

from lightning_modules.callbacks.mask_writer import MaskWriter
from lightning_modules.measured_task import MeasuredTask
from lightning_modules.step_metrics import StepMetrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import lightning.pytorch as pl
    from torch import Tensor


def _best_class(logits: Tensor) -> Tensor:
    return logits.argmax(dim=1)


class SegmentationTask(MeasuredTask):
    """Trains a network that gives logits of every pixel, ``[T, B, K, H, W]``, such as ``spiking_fpn_nano``.

    Targets are class numbers ``y [B, H, W]``, of ``uint8`` or ``int64``.

    Args:
        model: name of an entry of the task segmentation, or see `ClassificationTask`.
        model_args: arguments of the network.
        num_classes: K; taken from the data on the command line.
        in_chans: C; taken from the data on the command line.
        ignore_index: the number of pixels that count for nothing.
        channels_last: lay images and weights out with channels innermost.
        **arguments: optimiser and schedule, see `BaseTask`.
    """

    task: ClassVar[str] = "segmentation"
    monitor: ClassVar[str] = "val/miou"
    mode: ClassVar[Literal["min", "max"]] = "max"
    output: ClassVar[str] = "masks"
    loss_name = "cross-entropy of the pixels"
    curves: ClassVar[Mapping[str, Sequence[str]]] = {
        "loss": ("train/loss", "val/loss"),
        "mean IoU": ("val/miou",),
    }

    def __init__(
        self,
        model: str | dict[str, Any],
        model_args: dict[str, Any] | None = None,
        num_classes: int = 2,
        in_chans: int = 3,
        ignore_index: int = 255,
        channels_last: bool = True,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        self.save_hyperparameters()
        facts = {"num_classes": num_classes, "in_chans": in_chans}
        self.take_network(model, model_args, facts, channels_last=channels_last)
        self.num_classes, self.ignore_index = num_classes, ignore_index
        metrics = {
            "miou": MulticlassJaccardIndex(num_classes, ignore_index=ignore_index),
            "pixel_acc": MulticlassAccuracy(num_classes, average="micro", ignore_index=ignore_index),
        }
        self.found = StepMetrics(metrics, _best_class)

    @override
    def check_target(self, outputs: Tensor, target: Tensor) -> None:
        if outputs.dim() != 5:
            raise ValueError(
                f"{self.title} gives outputs {tuple(outputs.shape)}, but every pixel needs its logits"
                " [T, B, K, H, W]: choose a network for segmentation (fulgurite models --task segmentation)"
            )
        self.check_width(outputs.shape[2], self.num_classes, "classes")
        expected = (outputs.shape[1], *outputs.shape[3:])
        if target.shape != expected or target.is_floating_point():
            raise ValueError(
                f"the data hold {target.dtype} targets {tuple(target.shape)}, but a class number for every"
                f" pixel is expected: {expected}"
            )
        wrong = (target >= self.num_classes) & (target != self.ignore_index)
        if bool(wrong.any()):
            raise ValueError(
                f"the data hold class {int(target[wrong][0])}, but the network has {self.num_classes} (0 to"
                f" {self.num_classes - 1}), and pixels that count for nothing are {self.ignore_index}"
            )

    @override
    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Of the mean of the logits ``[T, B, K, H, W]`` over T."""
        return F.cross_entropy(outputs.mean(dim=0), target.long(), ignore_index=self.ignore_index)

    @override
    def prediction_writer(self, output: Path, class_names: Sequence[str]) -> pl.Callback:
        return MaskWriter(output)
