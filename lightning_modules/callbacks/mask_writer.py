"""What ``fulgurite predict`` writes of segmentations: an image of class numbers for each sample.

Axes: B batch, K classes, H W map.
"""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from typing_extensions import override

from lightning_modules.callbacks.pair_writer import write_image
from lightning_modules.callbacks.unread import Unread

if TYPE_CHECKING:
    from collections.abc import Sequence

    import lightning.pytorch as pl
    from torch import Tensor

MOST_CLASSES = 256  # of an image with 8 bits a pixel


def as_mask(logits: Tensor) -> Image.Image:
    """The best class of every pixel as an image whose values are class numbers, shown in colours.

    Args:
        logits: ``[K, H, W]``.

    Raises:
        ValueError: K is above 256.
    """
    if len(logits) > MOST_CLASSES:
        raise ValueError(f"masks hold at most {MOST_CLASSES} classes, got {len(logits)}")
    mask = Image.fromarray(logits.argmax(dim=0).to(torch.uint8).cpu().numpy()).convert("P")
    mask.putpalette(_palette(len(logits)))
    return mask


def _palette(classes: int) -> bytes:
    """Black for class 0, and colours as far apart as golden angles bring them."""
    colours = [(0.0, 0.0, 0.0)]
    colours += [colorsys.hsv_to_rgb(k * 0.618034 % 1, 0.65, 0.95) for k in range(1, classes)]
    return (np.array(colours) * 255).round().astype(np.uint8).tobytes()


class MaskWriter(BasePredictionWriter):
    """Writes ``NAME.png`` batch by batch, so that what is finished stays.

    Batches are ``(x, paths)``, see `Unread`; the task's ``predict_step`` gives logits ``[B, K, H, W]``.
    Images of one name in several folders get the folder's name in front.

    Args:
        output: the folder.
    """

    def __init__(self, output: str | Path) -> None:
        super().__init__(write_interval="batch")
        self.output = Path(output)
        self.written: dict[Path, str] = {}
        self.unread = Unread()

    @override
    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Tensor,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        for path, logits in self.unread.leave_out(batch[1], prediction):
            self.write(path, logits)

    def write(self, path: str, logits: Tensor) -> Path:
        """Write the mask of one sample; returns its file."""
        source = Path(path)
        target = self.output / f"{source.stem}.png"
        if self.written.setdefault(target, path) != path:
            target = self.output / f"{source.parent.name}_{source.stem}.png"
            self.written[target] = path
        write_image(as_mask(logits), target)
        return target

    @override
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.written:
            rank_zero_info(f"{len(self.written)} masks written to {self.output}")
        self.unread.check(self.output)
