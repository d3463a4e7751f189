"""The texts and pictures that ``fulgurite predict`` writes."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from typing_extensions import override

from zoo.files.atomic import replacing, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import lightning.pytorch as pl
    from torch import Tensor

SMALLEST = 128  # sides of pictures are enlarged to at least so many pixels
PAGE = "index.html"
HEAD = """<!doctype html>
<meta charset="utf-8">
<title>Writings</title>
<style>
body { font: 15px/1.5 sans-serif; margin: 2em; max-width: 60em; }
section { border-top: 1px solid #ccc; padding: 0.8em 0; }
h2 { font-size: 1.1em; margin: 0 0 0.4em; }
small { color: #666; display: block; }
img { display: block; margin: 0.4em 0; image-rendering: pixelated; }
i { color: #666; }
</style>
"""


class WritingWriter(BasePredictionWriter):
    """Writes what came of each prompt as it comes: ``NUMBER_WAY.json`` with text and costs, and its pictures.

    In the end, or when it is interrupted, ``index.html`` shows everything that is there.

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
            parts: list[dict[str, str]] = []
            for kind, content in told["parts"]:
                if kind == "image":
                    name = f"{stem}_{sum('image' in part for part in parts)}.png"
                    save_picture(content, self.folder / name)
                    parts.append({"image": name})
                else:
                    parts.append({kind: content})
            text = json.dumps({**told, "parts": parts}, indent=2, ensure_ascii=False)
            write_text(self.folder / f"{stem}.json", text + "\n")
            rank_zero_info(f"{line(told)} -> {self.folder / stem}.json")

    @override
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.strategy.barrier()
        if trainer.is_global_zero and self.folder.is_dir():
            write_page(self.folder)

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if trainer.is_global_zero and self.folder.is_dir():
            write_page(self.folder)


def line(told: Mapping[str, Any]) -> str:
    """What was written, in a line."""
    images = sum(kind == "image" for kind, _ in told["parts"])
    pieces = [repr(told["text"])] * bool(told["text"]) + [f"{images} image{'s' * (images != 1)}"]
    cut = "" if told["ended"] else ", cut off by the context"
    return (
        f"{told['prompt']} ({told['way']}): {' and '.join(pieces)} in {told['passes']} passes,"
        f" {told['seconds']:.2f} s{cut}"
    )


def write_page(folder: Path) -> None:
    """Write ``index.html`` from the files in a folder."""
    body = []
    for path in sorted(folder.glob("*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        body.append(f"<section><h2>{escape(told['prompt'])} <i>({escape(told['way'])})</i></h2>")
        for part in told["parts"]:
            ((kind, content),) = part.items()
            if kind == "image":
                body.append(f'<img src="{escape(content)}" alt="image of {escape(told["prompt"])}">')
            else:
                label = "" if kind == "text" else f"<i>{escape(kind)}: </i>"
                body.append(f"<p>{label}{escape(content)}</p>")
        drawn = f", {told['image_passes']} of them for images" if told["image_passes"] else ""
        cut = "" if told["ended"] else "; the context cut it off"
        body.append(f"<small>{told['passes']} passes{drawn}, {told['seconds']:.2f} s{cut}</small></section>")
    write_text(folder / PAGE, HEAD + "\n".join(body) + "\n")


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
