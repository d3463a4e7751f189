"""Training of vision tokenizers: images become grids of codes and images again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from typing_extensions import override

import zoo
from lightning_modules.base import BaseTask
from lightning_modules.source import checkpoint_of
from zoo.models.emu3_5.ibq import IBQ

if TYPE_CHECKING:
    from torch import Tensor


class ImageTokenizerTask(BaseTask):
    """Trains an autoencoder whose images pass through one of K codes a place (IBQ, arXiv 2412.02692).

    Batches are ``{"images": float32 [B, C, H, W]}`` in [0, 1]. The loss is the squared error of the images,
    the quantiser's own loss and its entropies. The published training adds LPIPS, a discriminator and
    features of SigLIP, for which small grey images have no use.

    Args:
        model: name of an entry such as ``emu3_5_ibq_tiny``.
        model_args: its arguments; ``weights: PATH`` starts from trained ones.
        quantizer_weight: of the quantiser's loss.
        entropy_weight: of the entropies: small where places are sure of their code and all codes are used.
        kwargs: see `BaseTask`.

    Raises:
        ValueError: an entry that is no such tokenizer, or a negative weight.
    """

    method: ClassVar[str] = "IBQ"
    paper: ClassVar[str | None] = "2412.02692"

    used: Tensor

    def __init__(
        self,
        model: str = "emu3_5_ibq_tiny",
        model_args: dict[str, Any] | None = None,
        quantizer_weight: float = 1.0,
        entropy_weight: float = 0.05,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (("quantizer_weight", quantizer_weight), ("entropy_weight", entropy_weight)):
            if not value >= 0:
                raise ValueError(f"{name} must be 0 or more, got {value!r}")
        self.save_hyperparameters()
        arguments = dict(model_args or {})
        weights = arguments.pop("weights", None)
        built: Any = (
            zoo.create(model, **arguments)
            if weights is None
            else zoo.load(model, weights=checkpoint_of(str(weights)), **arguments).train()
        )
        if not isinstance(built, IBQ):
            raise ValueError(f"model must be a vision tokenizer such as 'emu3_5_ibq_tiny', got {model!r}")
        self.model: IBQ = built
        self.quantizer_weight, self.entropy_weight = quantizer_weight, entropy_weight
        self.register_buffer("used", torch.zeros(built.codes, dtype=torch.bool), persistent=False)

    @staticmethod
    def images_of(batch: Any) -> Tensor:
        """Images ``[N, C, H, W]`` in [-1, 1] of a batch."""
        images: Tensor = batch["images"]
        return images * 2 - 1

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images = self.images_of(batch)
        found = self.model.quantized(images, entropy=self.entropy_weight > 0)
        error = F.mse_loss(self.model.decode(found.z), images)
        loss = error + self.quantizer_weight * found.loss + self.entropy_weight * found.entropy_loss
        self.require_finite(loss)
        self.log("train/loss", loss, batch_size=len(images), prog_bar=True)
        self.log("train/mse", error, batch_size=len(images))
        return loss

    def _measure(self, batch: Any, stage: str) -> None:
        images = self.images_of(batch)
        codes = self.model.encode(images)
        self.used[codes.flatten()] = True
        made = self.model.decode_code(codes).clamp(-1, 1)
        errors = (made - images).square().flatten(1).mean(1)
        size = len(images)
        self.log(f"{stage}/loss", errors.mean(), batch_size=size, prog_bar=True, sync_dist=True)
        psnr = (10 * (4 / errors.clamp_min(1e-10)).log10()).mean()
        self.log(f"{stage}/psnr", psnr, batch_size=size, prog_bar=True, sync_dist=True)

    def _report(self, stage: str) -> None:
        self.log(f"{stage}/codes_used", self.used.float().mean(), sync_dist=True)
        self.used.zero_()

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._measure(batch, "val")

    @override
    def on_validation_epoch_end(self) -> None:
        self._report("val")

    @override
    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._measure(batch, "test")

    @override
    def on_test_epoch_end(self) -> None:
        self._report("test")
