"""The texts and pictures that ``fulgurite predict`` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image
from typing_extensions import override

from zoo.files.atomic import replacing, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import lightning.pytorch as pl
    from torch import Tensor

SMALLEST = 128  # sides of pictures are enlarged to at least so many pixels


class WritingWriter(BasePredictionWriter):
    """Writes what came of each prompt as it comes: ``NUMBER.json`` with text and costs, pictures beside it.

    Args:
        folder: where to.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(write_interval="batch")
        self.folder = Path(folder)

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
        self.folder.mkdir(parents=True, exist_ok=True)
        number = batch_idx * trainer.world_size + trainer.global_rank
        for told in prediction:
            stem = f"{number:04d}_{told['way']}"
            names = []
            for place, image in enumerate(told["images"]):
                names.append(f"{stem}_{place}.png")
                save_picture(image, self.folder / names[-1])
            text = json.dumps({**told, "images": names}, indent=2, ensure_ascii=False)
            write_text(self.folder / f"{stem}.json", text + "\n")


def picture(image: Tensor) -> Image.Image:
    """An image ``[C, H, W]`` in [0, 1] for people: small ones are enlarged by whole numbers."""
    grey = (image.detach().cpu().float().clamp(0, 1) * 255).round().byte()
    made = Image.fromarray(grey[0].numpy() if len(grey) == 1 else grey.permute(1, 2, 0).numpy())
    factor = max(1, -(-SMALLEST // max(made.size)))
    return made.resize((made.width * factor, made.height * factor), Image.Resampling.NEAREST)


def save_picture(image: Tensor, path: Path) -> None:
    """Write an image ``[C, H, W]`` in [0, 1] as PNG."""
    with replacing(path) as temporary:
        picture(image).save(temporary, format="PNG")
