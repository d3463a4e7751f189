"""What a run says: progress and results; and the same, with the lines of each epoch, in ``log.txt``."""

from __future__ import annotations

import logging
import re
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOG = "log.txt"
SOURCES = ("lightning.pytorch", "lightning.fabric")  # their loggers hand nothing on
UNASKED = re.compile(  # what Lightning says of itself, or we say better
    r"(GPU|TPU|HPU|IPU) available|.*\bTip: |`Trainer\(?.*(stopped:|was configured so)"
    r"|Restor(ing|ed) |Loaded model|Loading `train_dataloader`|LOCAL_RANK: |Seed set to"
    r"|You are using a CUDA device|Using (bfloat16|16bit)"
)
UNASKED_WARNINGS = (
    ".*LeafSpec.*",  # lightning 2.6 on torch 2.14
    # batches of data in memory are made faster than a worker process could hand them over
    ".*does not have many workers.*",
    ".*Checkpoint directory .* exists and is not empty.*",  # as intended
    r".*add the following callbacks: \['\w*Averaging'\].*",  # only for training
    ".*Couldn't infer the batch indices.*",  # what predict writes is counted by batches
    ".*sync_dist=True.*",  # our values are reduced by torchmetrics, or equal everywhere
    ".*in eval mode at the start of training.*",  # parts that stay as they are, such as a tokenizer
    ".*smaller than the logging interval.*",  # see `RunLog.on_train_start`
)


def is_asked_for(record: logging.LogRecord) -> bool:
    """Whether a message of Lightning's tells the user about the run."""
    return UNASKED.match(record.getMessage()) is None


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what nobody asked for, as long as a command runs."""
    handlers = [handler for name in SOURCES for handler in logging.getLogger(name).handlers]
    for handler in handlers:
        handler.addFilter(is_asked_for)
    try:
        with warnings.catch_warnings():
            for pattern in UNASKED_WARNINGS:
                warnings.filterwarnings("ignore", pattern)
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_asked_for)


class RunLog(pl.Callback):
    """Keeps messages, warnings and one line for each epoch in ``log.txt`` of the run's folder.

    Where nobody watches a progress bar, the lines of the epochs are shown, too.

    Args:
        folder: the run's.
        command: what was typed, the first line.
        shown: whether the lines of epochs are also messages; where missing, if no terminal shows the bar.
    """

    def __init__(self, folder: str | Path, command: str, shown: bool | None = None) -> None:
        self.path = Path(folder) / LOG
        self.command = command
        self.shown = not sys.stderr.isatty() if shown is None else shown
        self._handler: logging.Handler | None = None
        self._show_warning: Any = None
        self._began = 0.0

    # -- messages ------------------------------------------------------------------------------

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._handler is not None or not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._handler = handler = logging.FileHandler(self.path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        handler.addFilter(is_asked_for)
        for name in SOURCES:
            logging.getLogger(name).addHandler(handler)
        self._write(self.command)
        before = self._show_warning = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            self._write(f"{category.__name__}: {message}")
            before(message, category, *place, **more)

        warnings.showwarning = show

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._close()

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._write(f"{type(exception).__name__}: {exception}")
        self._close()

    def _close(self) -> None:
        if self._handler is None:
            return
        for name in SOURCES:
            logging.getLogger(name).removeHandler(self._handler)
        warnings.showwarning = self._show_warning
        self._handler.close()
        self._handler = None

    def _write(self, text: str) -> None:
        if self._handler is not None:
            self._handler.emit(logging.makeLogRecord({"msg": text}))

    # -- epochs --------------------------------------------------------------------------------

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = time.monotonic()  # an epoch that goes on with its validation does not start
        own: Any = trainer  # its class does not declare the attribute
        batches = trainer.num_training_batches
        if batches < own.log_every_n_steps:  # else an epoch that short would log nothing of its training
            own.log_every_n_steps = max(1, int(batches))

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = time.monotonic()

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        line = epoch_line(trainer, trainer.callback_metrics, time.monotonic() - self._began)
        if self.shown:
            rank_zero_info(line)  # the file gets it, too
        else:
            self._write(line)

    @override
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        found = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("test/")}
        self._write(", ".join(f"{name} {float(value):.6g}" for name, value in found.items()))


def epoch_line(trainer: pl.Trainer, metrics: Mapping[str, Any], seconds: float) -> str:
    """One line of an epoch that is over: ``Epoch 3/12: train/loss 0.412, val/acc1 0.981 (14 s)``."""
    most = trainer.max_epochs or -1
    number = f"{trainer.current_epoch + 1}" + (f"/{most}" if most > 0 else "")
    values = ", ".join(
        f"{name} {float(value):.4g}"
        for name, value in metrics.items()
        if not name.startswith(("test/", "lr-"))
    )
    return f"Epoch {number}: {values} ({seconds:.0f} s)"


def why_it_stopped(trainer: pl.Trainer) -> str | None:
    """Why early stopping ended a training, and when; None if it did not."""
    for callback in getattr(trainer, "callbacks", ()):
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            reason = callback.stopping_reason_message.partition(" Signaling Trainer")[0]
            return f"stopped early after epoch {callback.stopped_epoch + 1}: {reason}"
    return None
