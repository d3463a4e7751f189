"""Which samples a number is of, where a run shows or writes it: on the progress bar, in ``metrics.csv``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar
from typing_extensions import override

from cli.run.storage import RunLogger

if TYPE_CHECKING:
    from collections.abc import Mapping


def described(trainer: pl.Trainer | None) -> dict[str, str]:
    """``validation, 50,000 samples`` and the like for ``val`` and ``test``, as far as they are loaded."""
    told = getattr(getattr(trainer, "datamodule", None), "splits", None)
    found: Mapping[str, Any] = told() if callable(told) else {}
    return {role: str(split) for role, split in found.items() if role != "train"}


class SplitProgressBar(RichProgressBar):
    """Says which samples are tested, or choose the checkpoint."""

    @property
    @override
    def validation_description(self) -> str:
        return self._with_split("Validation", "val")

    @property
    @override
    def test_description(self) -> str:
        return self._with_split("Testing", "test")

    @override
    def _get_train_description(self, current_epoch: int) -> str:
        """Epochs from one on, padded to the length of the other bars, lest they flicker."""
        most = self.trainer.max_epochs or -1
        text = f"Epoch {current_epoch + 1}" + (f"/{most}" if most > 0 else "")
        return f"{text:{len(self.validation_description)}}"

    @override
    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What the bar shows, in words that leave it room: ``val/acc1`` is ``val acc``."""
        found = super().get_metrics(trainer, pl_module)
        found.pop("v_num", None)  # of loggers whose runs are numbered
        return {_short(name): value for name, value in found.items()}

    def _with_split(self, word: str, role: str) -> str:
        split = described(self._trainer).get(role)
        return f"{word} ({split})" if split else word


def _short(name: str) -> str:
    return name.removeprefix("train/").replace("/", " ").replace("acc1", "acc")


class SplitColumns(pl.Callback):
    """Lets rows of ``metrics.csv`` say of which samples they are."""

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tell(trainer)

    @override
    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tell(trainer)

    @staticmethod
    def _tell(trainer: pl.Trainer) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.splits = described(trainer)
