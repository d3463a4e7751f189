"""Discrete Diffusion Adaptation: a trained language model learns to draw all codes of an image at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric
from typing_extensions import override

from lightning_modules.next_token import NextTokenTask
from lightning_modules.token_losses import weighted_cross_entropy
from zoo.models.emu3_5.dida import (
    Denoising,
    clean_places,
    joined,
    noisy_copies,
    noisy_tokens,
    training_times,
)
from zoo.models.emu3_5.pipeline import DIDA

if TYPE_CHECKING:
    from zoo.models.emu3_5.decoding import Writer
    from zoo.models.emu3_5.dida import NoisePath, NoisyCopies


class DiDATask(NextTokenTask):
    """Adapts a model of text and images so that it draws images in a few passes (Emu3.5, arXiv 2510.26583).

    Each image stands a second time behind the sequence, with noise in the place of its codes; the model finds
    the clean codes at all places of this copy together. Text, and images token by token, stay as they were.
    The noise is that of URSA (arXiv 2510.24717). Equal positions of copy and image are our choice, as are the
    share of the clean loss and all constants of the schedule: they are unpublished.

    Args:
        model: see `NextTokenTask`, as for what is not listed here; ``model_args: {weights: RUN}`` names the
            run that is adapted.
        path: ``"metric"``: codes that look alike are confused first; ``"mixture"``: all are as likely.
        c: scale of the metric path.
        alpha: power of the metric path.
        shift: of the training times; above 1 there is more noise.
        clean_every: add the next-token loss of the clean sequences every so many steps; 0: never.
        denoising: how images are drawn: ``passes``, ``form``, ``temperature``, ``guidance``, ``shift``.
        **arguments: see `NextTokenTask`.
    """

    method: ClassVar[str] = "discrete diffusion adaptation (DiDA) of a next-token model"
    monitor: ClassVar[str] = "val/dida_loss"

    def __init__(
        self,
        model: str,
        path: Literal["metric", "mixture"] = "metric",
        c: float = 3.0,
        alpha: float = 0.9,
        shift: float = 1.0,
        clean_every: int = 4,
        denoising: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        if path not in ("metric", "mixture"):
            raise ValueError(f"path must be 'metric' or 'mixture', got {path!r}")
        if shift <= 0:
            raise ValueError(f"shift must be positive, got {shift}")
        if clean_every < 0:
            raise ValueError(f"clean_every must be 0 (never) or more, got {clean_every}")
        self._facts = {"path": path, "c": c, "alpha": alpha}
        super().__init__(model=model, **arguments)
        self.save_hyperparameters()
        self.shift, self.clean_every = shift, clean_every
        self.denoising = Denoising(**(denoising or {}))
        self.dida_loss = MeanMetric()

    @property
    def path(self) -> NoisePath:
        """The noise, over the codes as the tokenizer at hand has them."""
        found: NoisePath = self.model.noise_path(self.pictures.embeddings())
        return found

    @override
    def model_facts(self) -> dict[str, Any]:
        return {"noise": self._facts}

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        tokens, documents, positions = self.packed(batch)
        copies = noisy_copies(tokens, documents, positions, self.roles)
        noisy = self.corrupted(tokens, copies)
        with_clean = bool(self.clean_every) and batch_idx % self.clean_every == 0
        clean, found = self.both_logits(tokens, noisy, documents, positions, copies, with_clean)
        loss = weighted_cross_entropy(found, copies.target, copies.counted.float())
        self.log("train/dida_loss", loss, batch_size=len(tokens), prog_bar=True)
        if clean is not None:
            loss = loss + self.next_token_loss(clean, tokens, documents)
        self.require_finite(loss)
        self.log("train/loss", loss, batch_size=len(tokens))
        return loss

    def corrupted(
        self, tokens: Tensor, copies: NoisyCopies, generator: torch.Generator | None = None
    ) -> Tensor:
        """The noisy copies ``[B, M]`` at a time drawn for each image."""
        images = int(copies.places.image.max()) + 1 if copies.places.image.numel() else 1
        draws = torch.rand(len(tokens), images, device=tokens.device, generator=generator)
        times, path = training_times(draws, self.shift), self.path

        def corrupt(codes: Tensor, t: Tensor) -> Tensor:
            return path.corrupt(codes, t, generator)

        return noisy_tokens(tokens, copies, self.roles, corrupt, times)

    def both_logits(
        self,
        tokens: Tensor,
        noisy: Tensor,
        documents: Tensor,
        positions: Tensor,
        copies: NoisyCopies,
        with_clean: bool,
    ) -> tuple[Tensor | None, Tensor]:
        """Logits of clean sequences ``[B, L, V]``, if wanted, and of copies ``[B, M, V]``, in one pass."""
        places = joined(clean_places(documents, positions), copies.places)
        copied = noisy.shape[1]
        made = self.model.decoder(
            input_ids=torch.cat([tokens, noisy], 1),
            attention_mask=self.mask(places),
            position_ids=places.position,
            use_cache=False,
            logits_to_keep=0 if with_clean else copied,
        )
        logits: Tensor = made.logits
        found = logits[:, logits.shape[1] - copied :]  # none where no row has an image
        return (logits[:, : tokens.shape[1]] if with_clean else None), found

    @override
    def _measure(self, batch: Any, stage: str) -> None:
        super()._measure(batch, stage)
        tokens, documents, positions = self.packed(batch)
        copies = noisy_copies(tokens, documents, positions, self.roles)
        # the same noise in every epoch, so that losses compare
        noisy = self.corrupted(tokens, copies, torch.Generator(tokens.device).manual_seed(len(tokens)))
        _, found = self.both_logits(tokens, noisy, documents, positions, copies, False)
        wanted = copies.counted
        losses = cross_entropy(found[wanted].float(), copies.target[wanted], reduction="none")
        self.dida_loss.update(losses)

    @override
    def _report(self, stage: str) -> None:
        super()._report(stage)
        self.log(f"{stage}/dida_loss", self.dida_loss.compute(), prog_bar=True)
        self.dida_loss.reset()

    @override
    def writers(self) -> dict[str, Writer]:
        return {**super().writers(), "dida_": self.writer(way=DIDA, denoising=self.denoising)}
