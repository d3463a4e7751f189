"""Loggers by one word, and the figures of a run in each of them."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from typing_extensions import override

from cli.errors import CommandError
from lightning_modules import record

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}  # each is an extra, too
PROJECT = "fulgurite"  # where WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME names no other


def named_logger(name: str, folder: Path) -> Logger:
    """A logger whose run is called as the folder; accounts and servers are those of its own settings.

    Args:
        name: ``tensorboard``, ``wandb`` or ``mlflow``.
        folder: the run's, where it writes what it keeps on this machine.

    Raises:
        CommandError: its package is not installed.
    """
    from lightning.pytorch import loggers

    if find_spec(PACKAGES[name]) is None:
        raise CommandError(f"--logger {name} needs {PACKAGES[name]}: pip install 'fulgurite[{name}]'")
    if name == "tensorboard":
        return loggers.TensorBoardLogger(folder, name="", version=name)
    if name == "wandb":
        folder.mkdir(parents=True, exist_ok=True)
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        return loggers.WandbLogger(name=folder.name, save_dir=folder, project=project)
    return loggers.MLFlowLogger(
        experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT),
        run_name=folder.name,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.resolve()}/mlflow.db"),
        artifact_location=(folder.resolve() / "mlflow").as_uri(),
    )


class LogFigures(pl.Callback):
    """Hands the figures of a test to TensorBoard, wandb and MLflow; after the callbacks that draw them."""

    @override
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        drawn = sorted((record.test_folder(trainer, pl_module) / "figures").glob("*.png"))
        for logger in trainer.loggers:
            for path in drawn:
                log_figure(logger, path, trainer.global_step)


def log_figure(logger: Any, path: Path, step: int) -> None:
    """Show an image file in a logger; those that keep none are left alone."""
    from lightning.pytorch import loggers

    if isinstance(logger, loggers.TensorBoardLogger):
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        logger.experiment.add_image(path.stem, pixels, step, dataformats="HWC")
    elif isinstance(logger, loggers.WandbLogger):
        logger.log_image(path.stem, [str(path)])
    elif isinstance(logger, loggers.MLFlowLogger):
        logger.experiment.log_artifact(logger.run_id, str(path), "figures")
