"""Training and testing of a network whose targets are no single class: one loss, metrics at every T.

Axes: T time, B batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import override

import zoo
from lightning_modules.metrics import repeated_samples
from lightning_modules.network_task import NetworkTask

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import lightning.pytorch as pl
    from torch import Tensor

    from lightning_modules.step_metrics import StepMetrics


class MeasuredTask(NetworkTask):
    """Trains on the loss of the mean output over T, and measures the mean of the first t outputs for every t.

    Batches are ``(x, y)``: images ``x [B, C, H, W]`` or event frames ``[B, T, C, H, W]``. A subclass says
    what ``y`` is and what writes its predictions, and sets `found`, its metrics, under the names that its
    task of the zoo has.

    Args:
        **arguments: optimiser and schedule, see `BaseTask`.
    """

    found: StepMetrics

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The loss of outputs ``[T, B, ...]``."""
        raise NotImplementedError

    def check_target(self, outputs: Tensor, target: Tensor) -> None:
        """Raise an error that names targets which do not fit the outputs ``[T, B, ...]``."""

    def check_width(self, found: int, wanted: int, what: str) -> None:
        """Raise an error where the network was told another number of outputs than the data have.

        Args:
            found: outputs of the network.
            wanted: as the data tell.
            what: they are.
        """
        if found != wanted:
            raise ValueError(
                f"{self.title} gives {found} {what}, but the data have {wanted}; leave num_classes out of"
                " model_args: the data tell it"
            )

    def targets(self, y: Tensor) -> Tensor:
        """The targets of a batch as loss and metrics take them."""
        return y

    @override
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss, logged as ``train/loss``."""
        x, y = batch[0], self.targets(batch[1])
        outputs = self(x)
        if self.global_step == 0:
            self.check_target(outputs, y)
        loss = self.loss(outputs, y)
        self.require_finite(loss)
        self.log("train/loss", loss, on_step=True, on_epoch=False, prog_bar=True, batch_size=len(x))
        return loss

    def _evaluate(self, batch: tuple[Tensor, Tensor], stage: Literal["val", "test"], batch_idx: int) -> None:
        x, y = batch[0], self.targets(batch[1])
        outputs = self.evaluated(x, batch_idx)
        self.check_target(outputs, y)
        own = len(y) - repeated_samples(self.trainer, stage, batch_idx)
        self.found.update(outputs[:, :own], y[:own])
        loss = self.loss(outputs, y)
        self.log(f"{stage}/loss", loss, prog_bar=stage == "val", batch_size=len(y), sync_dist=True)

    def _finish(self, stage: Literal["val", "test"]) -> None:
        steps, headline = self.found.compute(), zoo.get_task(self.task).headline
        self.found.reset()
        if not steps:
            return
        for name, value in steps[-1].items():
            self.log(f"{stage}/{name}", value, prog_bar=name == headline, rank_zero_only=False)
        if stage == "test":
            for t, values in enumerate(steps, 1):
                self.log(f"test/{headline}_t{t}", values[headline])

    @override
    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log ``val/loss``."""
        self._evaluate(batch, "val", batch_idx)

    @override
    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the mean over T."""
        self._finish("val")

    @override
    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log ``test/loss``."""
        self._evaluate(batch, "test", batch_idx)

    @override
    def on_test_epoch_end(self) -> None:
        """Log the metrics of the mean over T, and the most important one after every step."""
        self._finish("test")

    @override
    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Mean outputs over T ``[B, ...]`` of a batch ``(x, anything)`` or ``x``."""
        x = batch[0] if isinstance(batch, tuple | list) else batch
        outputs: Tensor = self(x).mean(dim=0).float()
        return outputs

    def prediction_writer(self, output: Path, class_names: Sequence[str]) -> pl.Callback:
        """What writes predictions; the arguments are those of `prediction_callbacks`."""
        raise NotImplementedError

    @override
    def prediction_callbacks(
        self,
        output: Path,
        *,
        class_names: Sequence[str] = (),
        top_k: int = 5,
        explain: Literal["tokens"] | None = None,
    ) -> list[pl.Callback]:
        if explain is not None:
            raise ValueError("--explain tokens is for classifiers")
        return [self.prediction_writer(output, class_names)]
