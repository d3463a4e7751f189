"""Draws which tokens of an image a token scorer holds for important."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

import zoo
from lightning_modules import figures

if TYPE_CHECKING:
    from collections.abc import Sequence


class TokenMaps(pl.Callback):
    """While predicting, draws one figure an image: token importance after every step, and the kept tokens.

    The scorer is that of the task's ``token_reduction``; without one it is Uncert with half of the tokens.

    Args:
        folder: for the figures, ``IMAGE.png`` each.
        class_names: labels by class number; numbers where missing.
        most: images to draw, by the first process; the others are only predicted.
    """

    def __init__(self, folder: str | Path, class_names: Sequence[str] = (), most: int = 16) -> None:
        if most < 1:
            raise ValueError(f"most must be at least 1, got {most}")
        self.folder = Path(folder)
        self.class_names = list(class_names)
        self.most = most
        self.drawn: set[str] = set()

    @override
    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.is_global_zero or len(self.drawn) >= self.most:
            return
        x, paths = batch[0], [str(p) for p in batch[1]]
        count = min(len(paths), self.most - len(self.drawn))
        task: Any = pl_module
        found = zoo.token_importance(task.model, task.prepare(x[:count]))
        for i in range(count):
            probability, k = outputs["probabilities"][i].max(dim=0)
            label = self.class_names[int(k)] if int(k) < len(self.class_names) else str(int(k))
            title = f"{Path(paths[i]).name}: {label} ({float(probability):.0%}), tokens before {found.block}"
            image = x[i] if x.dim() == 4 else x[i].mean(dim=0)
            figure = figures.token_maps(image, found.scores[:, i], found.kept[i], title)
            figures.save(figure, self.folder / self._name(paths[i]))

    def _name(self, path: str) -> str:
        stem = name = Path(path).stem
        number = 2
        while name in self.drawn:  # of another folder
            name, number = f"{stem}-{number}", number + 1
        self.drawn.add(name)
        return f"{name}.png"

    @override
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.drawn:
            rank_zero_info(f"token maps of {len(self.drawn)} images in {self.folder}")
