"""What ``fulgurite predict`` writes of generated images: one file each, and a sheet that shows why.

Axes: N samples, H W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from typing_extensions import override

from zoo.files.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import lightning.pytorch as pl
    from torch import Tensor

SMALL = 64  # pixels below which a sheet enlarges its images
GAP = 4  # pixels between the images of a sheet


def to_bytes(image: Tensor) -> np.ndarray:
    """``[C, H, W]`` in [-1, 1] -> ``[H, W, 3]``; a map of one channel becomes grey."""
    pixels = ((image.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return pixels.expand(3, -1, -1).permute(1, 2, 0).numpy()


def sheet(before: Tensor, change: Tensor, made: Tensor) -> Image.Image:
    """Image before, map, prediction and their difference side by side.

    Args:
        before: ``[3, H, W]``.
        change: ``[1, H, W]``.
        made: ``[3, H, W]``.
    """
    difference = (made - before).abs() - 1  # nothing is black
    height, width = before.shape[-2:]
    times = max(1, SMALL // min(height, width))
    whole = Image.new("RGB", (4 * width * times + 3 * GAP, height * times), "white")
    for place, image in enumerate((before, change, made, difference)):
        tile = Image.fromarray(to_bytes(image)).resize(
            (width * times, height * times), Image.Resampling.NEAREST
        )
        whole.paste(tile, (place * (width * times + GAP), 0))
    return whole


def gallery(before: Tensor, change: Tensor, made: Tensor, count: int = 8) -> Image.Image:
    """Sheets of the first samples, one below the other; the arguments are batches of those of `sheet`."""
    rows = [sheet(*images) for images in zip(before[:count], change[:count], made[:count], strict=True)]
    width, height = rows[0].size
    whole = Image.new("RGB", (width, len(rows) * (height + GAP) - GAP), "white")
    for place, row in enumerate(rows):
        whole.paste(row, (0, place * (height + GAP)))
    return whole


def write_image(image: Image.Image, path: Path) -> None:
    """Write a PNG whole or not at all, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "wb") as file:
        image.save(file, format="png")


class PairWriter(BasePredictionWriter):
    """Writes ``NAME.png`` and ``sheets/NAME.png`` batch by batch, so that what is finished stays.

    Args:
        output: the folder.
    """

    def __init__(self, output: str | Path) -> None:
        super().__init__(write_interval="batch")
        self.output = Path(output)
        self.count = 0

    @override
    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Tensor,
        batch_indices: Sequence[int] | None,
        batch: Mapping[str, Any],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        for before, change, made, name in zip(
            batch["before"], batch["change"], prediction, batch["name"], strict=True
        ):
            write_image(Image.fromarray(to_bytes(made)), self.output / f"{name}.png")
            write_image(sheet(before, change, made), self.output / "sheets" / f"{name}.png")
            self.count += 1

    @override
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        rank_zero_info(f"{self.count} images and sheets written to {self.output}")
