"""The table that ``fulgurite predict`` writes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from typing_extensions import override

from zoo.files.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import lightning.pytorch as pl


class PredictionWriter(BasePredictionWriter):
    """Writes the classes of images into a CSV: path, label, probability, then the next best labels.

    Batches are ``(x, paths)``; the task's ``predict_step`` gives ``probabilities [B, K]``.

    Every process writes its own part while it goes; at the end the first one puts them together,
    in the order of the images, and renames the finished table into place.

    Args:
        output: the CSV file.
        class_names: labels by class number; numbers where missing.
        top_k: how many labels a line names.
    """

    def __init__(self, output: str | Path, class_names: Sequence[str], top_k: int) -> None:
        super().__init__(write_interval="batch_and_epoch")
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        self.output = Path(output)
        self.class_names = list(class_names)
        self.top_k = top_k
        self.count = 0

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
        probabilities = prediction["probabilities"]
        paths = batch[1]
        values, classes = probabilities.topk(min(self.top_k, probabilities.shape[1]), dim=1)
        with self._part(trainer.global_rank).open("a", newline="") as file:
            writer = csv.writer(file)
            for row, path in enumerate(paths):
                cells = [str(path)]
                for value, k in zip(values[row].tolist(), classes[row].tolist(), strict=True):
                    cells += [self._label(k), f"{value:.6f}"]
                writer.writerow(cells)

    def _label(self, k: int) -> str:
        return self.class_names[k] if k < len(self.class_names) else str(k)

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
        ranks = max((len(row) - 1) // 2 for row in rows)
        header = ["path", "label", "probability"]
        for place in range(2, ranks + 1):
            header += [f"label_{place}", f"probability_{place}"]
        with replacing(self.output, "w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        for rank in range(processes):
            self._part(rank).unlink()
        self.count = len(rows)
        rank_zero_info(f"{len(rows)} predictions written to {self.output}")
