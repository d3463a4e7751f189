"""Checkpoints and the table of metrics: whole, or as they were."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from cli.errors import CheckpointError, disk_problem
from zoo.files.atomic import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes local checkpoints beside their final place and renames them.

    Lightning 2.6 writes to the system's temporary folder and moves the file from there; on another
    file system that move is a copy, which a full disk or a killed process leaves half done in place
    of the earlier checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Save whole or not at all.

        Raises:
            CheckpointError: it could not be written; an earlier file of this name is untouched.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, str(path), storage_options)
            return
        target = Path(path)
        try:
            with replacing(target) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch's zip writer turns OSError into the latter
            reason = disk_problem(error)
            if reason is None:
                raise
            kept = "The earlier checkpoint of that name is whole. " if target.exists() else ""
            raise CheckpointError(
                f"could not save the checkpoint {target}: {reason}. {kept}Make room, then continue"
                " with the same command and --ckpt_path last"
            ) from error


class RunWriter(ExperimentWriter):
    """Appends to the ``metrics.csv`` of a resumed run; a new column rewrites it atomically.

    Args:
        log_dir: the run's folder.
        keep_steps: rows from this step on are dropped, because the resumed run writes them again;
            ``None`` starts a new file.
    """

    def __init__(self, log_dir: str, keep_steps: int | None) -> None:
        self._keep_steps = keep_steps
        super().__init__(log_dir=log_dir)
        if keep_steps is not None:
            self._adopt(Path(self.metrics_file_path), keep_steps)

    def _check_log_dir_exists(self) -> None:
        """Remove only the table of an earlier, finished run; Lightning's version warns besides."""
        if self._keep_steps is None:
            Path(self.metrics_file_path).unlink(missing_ok=True)

    def _adopt(self, path: Path, keep_steps: int) -> None:
        if not path.is_file():
            return
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            self.metrics_keys = [key for key in reader.fieldnames or [] if key]
            rows = [row for row in reader if _step(row) < keep_steps]
        self._write(self.metrics_keys, rows)

    def _write(self, fields: list[str], rows: list[dict[str, Any]]) -> None:
        with replacing(Path(self.metrics_file_path), "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=fields, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with open(self.metrics_file_path, newline="") as file:
            rows = list(csv.DictReader(file))
        self._write(fieldnames, rows)


def _step(row: dict[str, Any]) -> float:
    """Return a row's step; infinite, so that it is dropped, if the row was cut off."""
    try:
        return int(row["step"])
    except (KeyError, TypeError, ValueError):
        return float("inf")


class RunLogger(CSVLogger):
    """``metrics.csv`` in the run's own folder, without version folders, flushed at every row.

    Args:
        folder: where to write.
        keep_steps: see `RunWriter`.

    Attributes:
        splits: what the samples of ``val`` and ``test`` are, in words.
    """

    def __init__(self, folder: str | Path, keep_steps: int | None = None) -> None:
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=1)
        self._keep_steps = keep_steps
        self.splits: dict[str, str] = {}

    @override
    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Write a row; one with ``val/...`` or ``test/...`` also says of which samples it is."""
        stages = {name.partition("/")[0] for name in metrics}
        told = {f"{stage}/split": text for stage, text in self.splits.items() if stage in stages}
        row: dict[str, Any] = {**metrics, **told}
        super().log_metrics(row, step)

    @property
    @override
    def log_dir(self) -> str:
        return self._save_dir

    @property
    @override
    def experiment(self) -> Any:
        if self._experiment is None and getattr(rank_zero_only, "rank", 0) == 0:
            self._experiment = RunWriter(self.log_dir, self._keep_steps)
        return super().experiment
