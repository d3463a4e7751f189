"""Callbacks of the command line: the last checkpoint, the table of predictions."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import BasePredictionWriter, Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from cli.run.resume import CHECKPOINTS, LAST
from cli.run.storage import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import lightning.pytorch as pl
    from torch import Tensor


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt`` up to date: every so many steps and after every validation.

    ``ModelCheckpoint`` of Lightning 2.6 does one or the other, and renews its ``last.ckpt`` only
    when the best one changed.

    Args:
        folder: the run's folder.
        every_n_steps: optimiser steps between two checkpoints within an epoch; 0: none there.
        resume_hint: the command that continues, shown when the run is interrupted.
    """

    def __init__(self, folder: str | Path, every_n_steps: int, resume_hint: str = "") -> None:
        super().__init__()
        if every_n_steps < 0:
            raise ValueError(f"checkpoint_every_n_steps must be 0 or more, got {every_n_steps}")
        self.path = Path(folder) / CHECKPOINTS / LAST
        self.every_n_steps = every_n_steps
        self.resume_hint = resume_hint
        self._saved_step = 0

    def _save(self, trainer: pl.Trainer) -> None:
        if getattr(trainer, "fast_dev_run", False) or trainer.sanity_checking:
            return
        if trainer.state.fn != TrainerFn.FITTING:
            return
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved_step = trainer.global_step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count from the step that the run starts or goes on with."""
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save within the epoch."""
        step = trainer.global_step
        # the comparison skips the batches that only accumulate gradients of the next step
        if self.every_n_steps and step % self.every_n_steps == 0 and step != self._saved_step:
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, so that the checkpoint knows the validation's result."""
        self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the end of an epoch that had no validation."""
        if trainer.global_step != self._saved_step:
            self._save(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what a fit of no epoch has made: a conversion."""
        if trainer.global_step == 0 and not self.path.exists():
            self._save(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Say how to go on."""
        if trainer.state.fn == TrainerFn.FITTING and self.path.exists() and self.resume_hint:
            rank_zero_info(f"continue with: {self.resume_hint}")


class PredictionWriter(BasePredictionWriter):
    """Writes a CSV: path, label, probability, then the next best labels.

    Every process writes its own part while it goes; at the end the first one puts them together,
    in the order of the images, and renames the finished table into place.

    Args:
        output: the CSV file.
        class_names: labels by class number; numbers where missing.
        top_k: how many labels a line names.
    """

    def __init__(self, output: str | Path, class_names: Sequence[str], top_k: int) -> None:
        super().__init__(write_interval="batch_and_epoch")
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        self.output = Path(output)
        self.class_names = list(class_names)
        self.top_k = top_k
        self.count = 0

    def _part(self, rank: int) -> Path:
        return self.output.with_name(f".{self.output.name}.part{rank}")

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start an empty part."""
        part = self._part(trainer.global_rank)
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text("")

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append the rows of one batch (x, paths)."""
        probabilities = _probabilities(prediction)
        paths = batch[1]
        values, classes = probabilities.topk(min(self.top_k, probabilities.shape[1]), dim=1)
        with self._part(trainer.global_rank).open("a", newline="") as file:
            writer = csv.writer(file)
            for row, path in enumerate(paths):
                cells = [str(path)]
                for value, k in zip(values[row].tolist(), classes[row].tolist(), strict=True):
                    cells += [self._label(k), f"{value:.6f}"]
                writer.writerow(cells)

    def _label(self, k: int) -> str:
        return self.class_names[k] if k < len(self.class_names) else str(k)

    def write_on_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any] | None,
    ) -> None:
        """Put the parts together."""
        trainer.strategy.barrier("predictions")
        if trainer.is_global_zero:
            self._collect(trainer.world_size)
        trainer.strategy.barrier("predictions collected")

    @rank_zero_only
    def _collect(self, processes: int) -> None:
        rows: list[list[str]] = []
        for rank in range(processes):
            with self._part(rank).open(newline="") as file:
                rows += list(csv.reader(file))
        rows.sort(key=lambda row: row[0])  # as the data module lists the images
        ranks = max((len(row) - 1) // 2 for row in rows)
        header = ["path", "label", "probability"]
        for place in range(2, ranks + 1):
            header += [f"label_{place}", f"probability_{place}"]
        with replacing(self.output, "w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        for rank in range(processes):
            self._part(rank).unlink()
        self.count = len(rows)
        rank_zero_info(f"{len(rows)} predictions written to {self.output}")


def _probabilities(prediction: Any) -> Tensor:
    """Return probabilities ``[B, K]`` from what a task's ``predict_step`` gives."""
    if isinstance(prediction, dict):
        if "probabilities" in prediction:
            return torch.as_tensor(prediction["probabilities"]).float()
        prediction = prediction["logits"]
    logits = torch.as_tensor(prediction).float()
    if logits.dim() == 3:  # [T, B, K]
        logits = logits.mean(dim=0)
    return logits.softmax(dim=1)
