"""The table that ``fulgurite predict`` writes.

Axes: B batch, K classes, M numbers.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from typing_extensions import override

from lightning_modules.callbacks.unread import Unread
from zoo.files.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import lightning.pytorch as pl
    from torch import Tensor


class Table(Protocol):
    """What a line of the table says of one sample, behind its path."""

    def header(self, cells: int) -> list[str]:
        """Titles of so many cells."""

    def cells(self, output: Tensor) -> list[str]:
        """The cells of one output of the network, its mean over T."""


@dataclass(frozen=True)
class ClassTable:
    """Label and probability of the best classes; of logits ``[K]``.

    Attributes:
        names: labels by class number; numbers where missing.
        top_k: how many labels a line names.
    """

    names: Sequence[str]
    top_k: int

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")

    def header(self, cells: int) -> list[str]:
        """``label``, ``probability``, ``label_2``, ..."""
        further = range(2, cells // 2 + 1)
        return [
            "label",
            "probability",
            *(f"{word}_{k}" for k in further for word in ("label", "probability")),
        ]

    def cells(self, output: Tensor) -> list[str]:
        """The best classes, in order."""
        values, classes = output.softmax(dim=0).topk(min(self.top_k, len(output)))
        pairs = zip(classes.tolist(), values.tolist(), strict=True)
        return [cell for k, value in pairs for cell in (_name(self.names, k), f"{value:.6f}")]


@dataclass(frozen=True)
class NumberTable:
    """Estimated numbers, by their names; of outputs ``[M]``."""

    names: Sequence[str]

    def header(self, cells: int) -> list[str]:
        """Their names."""
        return [_name(self.names, k, "number_") for k in range(cells)]

    def cells(self, output: Tensor) -> list[str]:
        """The numbers."""
        return [f"{value:.6g}" for value in output.flatten().tolist()]


@dataclass(frozen=True)
class LabelsTable:
    """Labels that are there, ``;`` between them, and the probability of each; of logits ``[K]``.

    Attributes:
        names: labels by class number; numbers where missing.
        threshold: probability from which on a class counts as there.
    """

    names: Sequence[str]
    threshold: float = 0.5

    def header(self, cells: int) -> list[str]:
        """``labels``, and the name of each class."""
        return ["labels", *(_name(self.names, k) for k in range(cells - 1))]

    def cells(self, output: Tensor) -> list[str]:
        """What is there, and all probabilities."""
        values = output.sigmoid().tolist()
        there = [_name(self.names, k) for k, value in enumerate(values) if value >= self.threshold]
        return [";".join(there), *(f"{value:.6f}" for value in values)]


def _name(names: Sequence[str], k: int, before: str = "") -> str:
    return names[k] if k < len(names) else f"{before}{k}"


def write_table(
    output: Path, table: Table, rows: Sequence[Sequence[str]], further: Sequence[str] = ()
) -> None:
    """Write lines of path and cells as a CSV, whole or not at all; ``further`` are titles of cells behind."""
    header = ["path", *table.header(max(len(row) for row in rows) - 1 - len(further)), *further]
    with replacing(output, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


class PredictionWriter(BasePredictionWriter):
    """Writes what a network says of images into a CSV, a line for each: its path, and what the table says.

    Batches are ``(x, paths)``, see `Unread`; the task's ``predict_step`` gives outputs ``[B, ...]``.

    Every process writes its own part while it goes; at the end the first one puts them together,
    in the order of the images, and renames the finished table into place.

    Args:
        output: the CSV file.
        table: what a line says.
    """

    def __init__(self, output: str | Path, table: Table) -> None:
        super().__init__(write_interval="batch_and_epoch")
        self.output = Path(output)
        self.table = table
        self.count = 0
        self.unread = Unread()

    def _part(self, rank: int) -> Path:
        return self.output.with_name(f".{self.output.name}.part{rank}")

    @override
    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        part = self._part(trainer.global_rank)
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text("")

    @override
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
        outputs = prediction["logits"] if isinstance(prediction, dict) else prediction
        with self._part(trainer.global_rank).open("a", newline="") as file:
            writer = csv.writer(file)
            for path, output in self.unread.leave_out(batch[1], outputs):
                writer.writerow([path, *self.table.cells(output)])

    @override
    def write_on_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any] | None,
    ) -> None:
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
        if rows:
            write_table(self.output, self.table, rows)
        for rank in range(processes):
            self._part(rank).unlink()
        self.count = len(rows)
        if rows:
            rank_zero_info(f"{len(rows)} predictions written to {self.output}")

    @override
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.unread.check(self.output)
