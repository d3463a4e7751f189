"""The training of UP-Diff's autoencoder by itself (arXiv 2407.11578): images through a latent and back.

Axes: N samples, H W pixels.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lightning_modules.autoencoder_loss import AutoencoderLoss
from lightning_modules.base import BaseTask
from lightning_modules.change_scores import image_scores
from zoo.models.up_diff import KLAutoencoder

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = "autoencoder"  # in the run folder


class AutoencoderTask(BaseTask):
    """Trains a KL autoencoder on images after the change, as the authors do: from random weights.

    When a training ends, the weights lie in ``autoencoder`` of the run folder, in the layout of diffusers.
    `LatentDiffusionTask` takes them as ``autoencoder``; let it ``rescale``, since nothing here draws the
    latents to the spread of Stable Diffusion's. Batches are dictionaries with ``after [N, 3, H, W]``.

    Args:
        channels: of each resolution; the default is Stable Diffusion's autoencoder.
        perceptual: ``"lpips"`` adds LPIPS by VGG-16 to the squared error, as published; ``"none"`` does not.
        kwargs: see `BaseTask`.

    Raises:
        ValueError: a setting that makes no sense.
        FileNotFoundError: LPIPS is asked for and its backbone is not on this machine.
    """

    method: ClassVar[str] = "autoencoder of UP-Diff"
    paper: ClassVar[str | None] = "2407.11578"

    def __init__(
        self,
        channels: list[int] | None = None,
        perceptual: Literal["lpips", "none"] = "lpips",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.save_hyperparameters()
        widths = channels or [128, 256, 512, 512]
        if min(widths) < 1:
            raise ValueError(f"channels must be at least 1, got {widths}")
        self.loss = AutoencoderLoss(perceptual)
        self.model = KLAutoencoder(widths, groups=min(32, *widths))

    @property
    @override
    def title(self) -> str:
        return "autoencoder"

    def _step(self, batch: Mapping[str, Any], stage: str) -> dict[str, Any]:
        found: dict[str, Any] = self.loss(self.model, batch["after"])
        told = {f"{stage}/{name}": value.detach() for name, value in found.items()}
        self.log_dict(told, prog_bar=True, batch_size=len(batch["after"]), sync_dist=stage != "train")
        return found

    @override
    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Any:
        loss = self._step(batch, "train")["loss"]
        self.require_finite(loss)
        return loss

    @override
    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        self._step(batch, "val")

    @override
    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        found = image_scores(self.model(batch["after"]), batch["after"])
        self.log_dict(
            {f"test/{k}": v for k, v in found.items()}, batch_size=len(batch["after"]), sync_dist=True
        )

    @override
    def on_train_end(self) -> None:
        """Write the weights beside the checkpoints: whole, then in the place of earlier ones."""
        super().on_train_end()
        if not self.trainer.is_global_zero:
            return
        target = Path(self.trainer.default_root_dir) / FOLDER
        fresh, old = target.with_name(f".{FOLDER}.new"), target.with_name(f".{FOLDER}.old")
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)
        self.model.network.save_pretrained(fresh)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
        shutil.rmtree(old, ignore_errors=True)
        rank_zero_info(f"the autoencoder is written to {target}")
