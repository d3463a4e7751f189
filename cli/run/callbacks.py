"""The checkpoint that a run goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from cli import signals
from cli.run.resume import CHECKPOINTS, LAST
from cli.run.stopping import is_asked, stop

if TYPE_CHECKING:
    from collections.abc import Callable

    import lightning.pytorch as pl


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt`` up to date: every so many steps and after every validation.

    A fit of no epoch, which only converts, saves at its end. An interruption says how to go on; one by a
    signal waits for the end of the batch and saves. A checkpoint of a batch that a validation follows is one
    from before that validation, which a run that goes on from there begins anew.

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
        self._validation_is_ahead = False

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
        signals.hold()

    def _is_due(self, trainer: pl.Trainer) -> bool:
        step = trainer.global_step
        # several optimisers step several times a batch and may pass a multiple without halting there; a batch
        # that only accumulates gradients of the next step changes nothing
        every = self.every_n_steps
        return bool(every) and step // every > self._saved_step // every

    def _attend(self, trainer: pl.Trainer, save: Callable[[pl.Trainer], None]) -> None:
        """Save if it is time to, or if a signal asked the run to end, and end it then."""
        asked = is_asked(trainer)
        if asked or self._is_due(trainer):
            save(trainer)
        if asked:
            stop()

    def _save_before_validation(self, trainer: pl.Trainer) -> None:
        self._validation_is_ahead = True
        self._save(trainer)
        self._validation_is_ahead = False

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._validation_is_ahead:
            # as Lightning knows a validation that was cut in its first batch
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            progress["total"] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress["current"] = dict.fromkeys(progress["total"], 0)
            progress["is_last_batch"] = False

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        loop = trainer.fit_loop
        if loop._data_fetcher and loop.epoch_loop._should_check_val_fx(loop._data_fetcher):
            return  # `on_validation_start` does it
        self._attend(trainer, self._save)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._attend(trainer, self._save_before_validation)

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        # several processes may have unequal numbers of batches, and could wait for each other here
        if fitting and trainer.world_size == 1 and is_asked(trainer):
            for callback in getattr(trainer, "callbacks", ()):
                if isinstance(
                    callback, WeightAveraging
                ):  # it has put the average in the place of the weights
                    callback.on_validation_epoch_end(trainer, pl_module)
            self._save_before_validation(trainer)
            stop()

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
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if is_asked(trainer):
            stop()
        signals.release()

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        signals.release()
        if trainer.state.fn == TrainerFn.FITTING and self.path.exists() and self.resume_hint:
            rank_zero_info(f"continue with: {self.resume_hint}")
