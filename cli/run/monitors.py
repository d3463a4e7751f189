"""Whether what callbacks watch is logged at all, asked after the first batch instead of the first epoch."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from typing_extensions import override

from cli.errors import OWN, CommandError, did_you_mean

KNOWN = (*OWN, "lightning")  # whose callbacks and tasks log nothing at the end of an epoch alone


class CheckMonitors(pl.Callback):
    """Compares what early stopping and checkpoints watch with what sanity check and first batch logged."""

    def __init__(self) -> None:
        super().__init__()
        self._validation: set[str] = set()
        self._done = False

    @override
    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validation = set(trainer.callback_metrics)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        foreign = any(
            type(part).__module__.partition(".")[0] not in KNOWN
            for part in (pl_module, *getattr(trainer, "callbacks", ()))
        )
        if self._done or foreign or not self._validation:
            return
        self._done = True
        logged = self._validation | set(trainer.callback_metrics)
        for callback in getattr(trainer, "callbacks", ()):
            if isinstance(callback, EarlyStopping | ModelCheckpoint) and getattr(callback, "strict", True):
                name = callback.monitor
                if name is not None and name not in logged:
                    raise CommandError(
                        f"{type(callback).__name__} watches {name!r}, which is never logged"
                        f"{did_you_mean(name, logged)}\n  there are: {', '.join(sorted(logged))}"
                    )
