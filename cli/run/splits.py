"""Which samples a number is of, where a run shows or writes it: on the progress bar, in ``metrics.csv``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import ProcessingSpeedColumn
from lightning.pytorch.trainer.states import TrainerFn
from rich import get_console
from rich.progress import BarColumn
from typing_extensions import override

from cli.run.storage import RunLogger

if TYPE_CHECKING:
    from collections.abc import Mapping

NARROW = 120  # columns of a terminal in which bar, samples and metrics do not fit into a line


def described(trainer: pl.Trainer | None) -> dict[str, str]:
    """``validation, 50,000 samples`` and the like for ``val`` and ``test``, as far as they are loaded."""
    told = getattr(getattr(trainer, "datamodule", None), "splits", None)
    found: Mapping[str, Any] = told() if callable(told) else {}
    return {role: str(split) for role, split in found.items() if role != "train"}


class SplitProgressBar(RichProgressBar):
    """Says which samples are tested, or choose the checkpoint.

    While a training shows its metrics, a narrow terminal has no room for that, nor for the bar itself.
    """

    @property
    @override
    def validation_description(self) -> str:
        return "Validation" if self._is_crowded(self._trainer) else self._with_split("Validation", "val")

    @override
    def configure_columns(self, trainer: pl.Trainer) -> list[Any]:
        columns: list[Any] = super().configure_columns(trainer)
        if not self._is_crowded(trainer):
            return columns
        return [one for one in columns if not isinstance(one, BarColumn | ProcessingSpeedColumn)]

    @staticmethod
    def _is_crowded(trainer: pl.Trainer | None) -> bool:
        fitting = trainer is not None and trainer.state.fn == TrainerFn.FITTING
        return fitting and get_console().width < NARROW

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
