"""Regression: numbers that are estimated of an image, such as a steering angle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lightning.pytorch.utilities import rank_zero_warn
from torch.nn import functional as F
from torchmetrics import MeanAbsoluteError, MeanSquaredError, R2Score
from typing_extensions import override

from lightning_modules.callbacks.predictions import NumberTable, PredictionWriter
from lightning_modules.measured_task import MeasuredTask
from lightning_modules.step_metrics import StepMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import lightning.pytorch as pl
    from torch import Tensor

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "mae": F.l1_loss,
    "huber": F.huber_loss,
}
LARGE = 10.0  # of a target's size; the outputs of a fresh network have a size of about 1


class RegressionTask(MeasuredTask):
    """Trains a network to estimate M numbers, which its last layer gives in the place of logits.

    Targets are ``y [B, M]``, or ``[B]`` where M is 1, in units in which they are of size 1 or so.

    Args:
        model: see `ClassificationTask`, as for the next one.
        model_args: arguments of the network.
        num_outputs: M; taken from the data on the command line.
        in_chans: C; taken from the data on the command line.
        loss: ``"mse"``, ``"mae"`` or ``"huber"`` (delta 1) of the mean over T.
        channels_last: lay images and weights out with channels innermost.
        **arguments: optimiser and schedule, see `BaseTask`.
    """

    task: ClassVar[str] = "regression"
    monitor: ClassVar[str] = "val/mae"
    mode: ClassVar[Literal["min", "max"]] = "min"
    curves: ClassVar[Mapping[str, Sequence[str]]] = {
        "loss": ("train/loss", "val/loss"),
        "mean absolute error": ("val/mae",),
    }

    def __init__(
        self,
        model: str | dict[str, Any],
        model_args: dict[str, Any] | None = None,
        num_outputs: int = 1,
        in_chans: int = 3,
        loss: Literal["mse", "mae", "huber"] = "mse",
        channels_last: bool = True,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(map(repr, LOSSES))}, got {loss!r}")
        if num_outputs < 1:
            raise ValueError(f"num_outputs must be at least 1, got {num_outputs}")
        self.save_hyperparameters()
        facts = {"num_classes": num_outputs, "in_chans": in_chans}
        self.take_network(model, model_args, facts, channels_last=channels_last)
        self.num_outputs, self.loss_name = num_outputs, loss
        metrics = {"mae": MeanAbsoluteError(), "rmse": MeanSquaredError(squared=False), "r2": R2Score()}
        self.found = StepMetrics(metrics)

    @override
    def check_target(self, outputs: Tensor, target: Tensor) -> None:
        self.check_width(outputs.shape[-1], self.num_outputs, "numbers")
        if target.shape != outputs.shape[1:] or not target.is_floating_point():
            raise ValueError(
                f"the data hold {target.dtype} targets {tuple(target.shape)}, but the network estimates"
                f" {self.num_outputs} numbers a sample: floats {tuple(outputs.shape[1:])} are expected"
            )
        size = float(target.abs().mean())
        if self.global_step == 0 and not self.trainer.sanity_checking and size > LARGE:
            rank_zero_warn(
                f"the targets are of size {size:.3g}; a network learns numbers of size 1 much faster: divide"
                " them, and multiply what it estimates"
            )

    @override
    def targets(self, y: Tensor) -> Tensor:
        """Give single numbers ``[B]`` the axis of the outputs, ``[B, 1]``."""
        return y.unsqueeze(1) if y.dim() == 1 and self.num_outputs == 1 else y

    @override
    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Of the mean of ``[T, B, M]`` over T."""
        return LOSSES[self.loss_name](outputs.mean(dim=0), target.to(outputs.dtype))

    @override
    def prediction_writer(self, output: Path, class_names: Sequence[str]) -> pl.Callback:
        return PredictionWriter(output, NumberTable(class_names))
