"""Callbacks and loggers that every run has, unless the user brought their like or switched them off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import (
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
    WeightAveraging,
)

from cli.run.callbacks import LastCheckpoint
from cli.run.loggers import LogFigures, named_logger
from cli.run.messages import RunLog
from cli.run.monitors import CheckMonitors
from cli.run.resume import BEST
from cli.run.splits import SplitColumns, SplitProgressBar
from cli.run.stopping import EndProcesses
from cli.run.storage import RunLogger
from lightning_modules import ResumableState, RunReport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cli.run.folder import RunFolder
    from cli.run.options import RunOptions
    from lightning_modules import BaseTask


def as_list(given: Any) -> list[Any]:
    """What may be missing, one thing, or several, as a list."""
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def default_callbacks(
    given: Sequence[Callback],
    trainer: Mapping[str, Any],
    task: BaseTask,
    folder: RunFolder,
    options: RunOptions,
    fitting: bool,
) -> list[Callback]:
    """What is added to the callbacks that the user gave.

    Args:
        given: these.
        trainer: arguments of the trainer.
        task: tells what the best checkpoint is.
        folder: the run's.
        options: the run's.
        fitting: whether the command is ``fit``.
    """
    wanted: list[Callback] = []
    if trainer.get("enable_progress_bar") is not False and not _any(given, ProgressBar):
        wanted.append(SplitProgressBar())
    if trainer.get("enable_checkpointing") is not False and not trainer.get("fast_dev_run"):
        if not _any(given, ModelCheckpoint):
            wanted.append(best_checkpoint(task, folder))
        if fitting:
            steps = options.checkpoint_every_n_steps
            wanted.append(LastCheckpoint(folder.path, steps, folder.resume_command))
    wanted += [ResumableState(), SplitColumns(), RunReport(), LogFigures(), EndProcesses()]
    if fitting and not trainer.get("fast_dev_run"):
        wanted += [RunLog(folder.path, folder.command), CheckMonitors()]
    if fitting and trainer.get("logger") is not False:
        wanted.append(LearningRateMonitor())
    return [callback for callback in wanted if type(callback) not in map(type, given)]


def without_averaging(callbacks: Sequence[Callback]) -> list[Callback]:
    """The callbacks but those that average weights, which have nothing to do once a training is over.

    A checkpoint has the average where all others have their weights. Lightning 2.6 loads what is beside it,
    the weights of the last step, when a trainer that has trained tests a checkpoint.
    """
    return [callback for callback in callbacks if not isinstance(callback, WeightAveraging)]


def _any(given: Sequence[Callback], kind: type[Callback]) -> bool:
    return any(isinstance(callback, kind) for callback in given)


def best_checkpoint(task: BaseTask, folder: RunFolder) -> ModelCheckpoint:
    """Keeps ``best.ckpt`` by the value that the task names."""
    return ModelCheckpoint(
        dirpath=folder.checkpoints,
        filename=Path(BEST).stem,
        monitor=task.monitor,
        mode=task.mode,
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )


def loggers(trainer: Mapping[str, Any], folder: RunFolder, options: RunOptions, command: str) -> Any:
    """``metrics.csv`` in the run's folder, or the user's loggers; what ``--logger`` names besides.

    Args:
        trainer: arguments of the trainer.
        folder: the run's; commands other than ``fit`` write into a folder of their name in it.
        options: the run's.
        command: the subcommand.
    """
    given = trainer.get("logger")
    if given is False or trainer.get("fast_dev_run"):
        return given
    fitting = command == "fit"
    where = folder.path if fitting else folder.path / command
    csv = given is None or given is True
    found: list[Any] = [RunLogger(where, folder.kept_steps if fitting else None)] if csv else as_list(given)
    names = [*as_list(options.logger), *(["tensorboard"] if options.tensorboard else [])]
    return found + [named_logger(name, where) for name in dict.fromkeys(names) if name != "csv"]
