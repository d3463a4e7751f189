"""The animation that ``fulgurite predict`` writes of an agent."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from zoo.files.atomic import replacing

if TYPE_CHECKING:
    from pathlib import Path

KINDS = (".gif", ".mp4")


class EpisodeFilm(pl.Callback):
    """Writes an episode as GIF or, where ``imageio-ffmpeg`` is installed, as MP4.

    Args:
        output: the file; its suffix says which.

    Raises:
        ValueError: another suffix, or no way to write MP4.
    """

    def __init__(self, output: Path) -> None:
        super().__init__()
        if output.suffix.lower() not in KINDS:
            raise ValueError(f"--output {output}: an episode is written as {' or '.join(KINDS)}")
        # asked for before the episode is played
        if output.suffix.lower() == ".mp4" and find_spec("imageio_ffmpeg") is None:
            raise ValueError(
                f"--output {output}: MP4 needs imageio-ffmpeg (pip install imageio-ffmpeg), a GIF nothing"
            )
        self.output = output

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
        if not trainer.is_global_zero:
            return
        gif = self.output.suffix.lower() == ".gif"
        with replacing(self.output) as file:
            if gif:
                _write_gif(file, outputs)
            else:
                import imageio.v3

                write: Any = imageio.v3.imwrite
                # else frames are stretched to multiples of 16
                write(file, outputs.frames, extension=".mp4", fps=outputs.fps, macro_block_size=2)
        rank_zero_info(
            f"{self.output}: an episode of {outputs.steps} steps, return {outputs.score:.1f},"
            f" {len(outputs.frames)} frames"
        )


def _write_gif(file: Any, film: Any) -> None:
    from PIL import Image

    shown = [Image.fromarray(frame) for frame in film.frames]
    if max(shown[0].size) > 320:
        scale = 320 / max(shown[0].size)
        size = tuple(round(side * scale) for side in shown[0].size)
        shown = [image.resize((size[0], size[1])) for image in shown]
    shown = [image.quantize(64) for image in shown]
    # GIF counts hundredths of a second, and browsers show less than two of them as ten
    pause = max(20, round(1000 / film.fps))
    shown[0].save(file, format="GIF", save_all=True, append_images=shown[1:], duration=pause, loop=0)
