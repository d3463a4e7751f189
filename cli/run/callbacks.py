"""The checkpoint that a run goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from cli.run.resume import CHECKPOINTS, LAST

if TYPE_CHECKING:
    import lightning.pytorch as pl


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt`` up to date: every so many steps and after every validation.

    A fit of no epoch, which only converts, saves at its end. An interruption says how to go on.
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

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved_step = trainer.global_step

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        # the comparison skips the batches that only accumulate gradients of the next step
        if self.every_n_steps and step % self.every_n_steps == 0 and step != self._saved_step:
            self._save(trainer)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step != self._saved_step:
            self._save(trainer)

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0 and not self.path.exists():
            self._save(trainer)

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if trainer.state.fn == TrainerFn.FITTING and self.path.exists() and self.resume_hint:
            rank_zero_info(f"continue with: {self.resume_hint}")
