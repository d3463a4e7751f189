"""Latent diffusion that is shown an image and a planned change: the training of UP-Diff (arXiv 2407.11578).

Axes: N samples, C H W channels and pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from rich.progress import Progress
from typing_extensions import override

from lightning_modules import record
from lightning_modules.backbone_scores import BackboneScores
from lightning_modules.base import BaseTask
from lightning_modules.callbacks.pair_writer import PairWriter, gallery, write_image
from lightning_modules.change_scores import building_scores, image_scores
from lightning_modules.start import build
from zoo.models.up_diff import IdentityAutoencoder, UpDiff, build_sampler, latent_spread, sample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import lightning.pytorch as pl
    from torch import Tensor

    Batch = Mapping[str, Any]

SPREAD_BATCHES = 4  # of training images, by which the spread of latents is judged


class LatentDiffusionTask(BaseTask):
    """Trains a network to tell noise from latents of the image after a change.

    Batches are dictionaries: ``before`` and ``after`` ``[N, 3, H, W]`` in [-1, 1], ``change [N, 1, H, W]`` of
    -1 and 1. With probability ``dropout`` a whole batch is shown the null layout.

    Args:
        model: name of an entry such as ``up_diff_levir``.
        model_args: its arguments; ``weights: PATH`` starts from trained ones.
        autoencoder: weights of Stable Diffusion's autoencoder in the layout of diffusers.
        unet: the UNet of Stable Diffusion 1.4 to start from, in the layout of diffusers.
        text_encoder: folder of Stable Diffusion's text encoder and tokenizer, which embed the captions once.
        rescale: let the latents of the training images have standard deviation 1, whatever the autoencoder.
        dropout: probability of the null layout.
        snr_gamma: min-SNR weights of the loss (arXiv 2303.09556), 5 there; missing: weight 1, as published.
        grad_checkpointing: recompute activations: less memory, more time.
        sampler: ``"plms"``, ``"ddim"`` or ``"dpm"``.
        sampling_steps: of the chain.
        guidance: how strongly the layout is followed; 1 halves the work.
        building: a pixel counts as building where the mean of its channels exceeds this; missing: such
            scores make no sense for the data.
        kwargs: see `BaseTask`.

    Raises:
        ValueError: a setting that makes no sense.
    """

    method: ClassVar[str] = "UP-Diff"
    paper: ClassVar[str | None] = "2407.11578"
    output: ClassVar[str] = "predictions"
    begins_with: ClassVar[tuple[str, ...]] = ("autoencoder", "unet", "text_encoder")
    backbones: BackboneScores  # of the test that runs

    def __init__(
        self,
        model: str = "up_diff_tiny",
        model_args: dict[str, Any] | None = None,
        autoencoder: str | None = None,
        unet: str | None = None,
        text_encoder: str | None = None,
        rescale: bool = False,
        dropout: float = 0.1,
        snr_gamma: float | None = None,
        grad_checkpointing: bool = False,
        sampler: Literal["plms", "ddim", "dpm"] = "plms",
        sampling_steps: int = 50,
        guidance: float = 5.0,
        building: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must lie between 0 and 1, got {dropout}")
        if snr_gamma is not None and snr_gamma <= 0:
            raise ValueError(f"snr_gamma must be positive, got {snr_gamma}")
        self.save_hyperparameters()
        built: Any = build(model, dict(model_args or {}))
        if not isinstance(built, UpDiff):
            raise ValueError(f"model must be one such as 'up_diff_tiny', got {model!r}")
        self.model: UpDiff = built
        build_sampler(sampler, sampling_steps)
        self.sources = {"autoencoder": autoencoder, "unet": unet, "text_encoder": text_encoder}
        self.rescale, self.dropout, self.snr_gamma = rescale, dropout, snr_gamma
        self.chain: dict[str, Any] = {"sampler": sampler, "steps": sampling_steps, "guidance": guidance}
        self.building = building
        self.model.set_grad_checkpointing(grad_checkpointing)

    @override
    def setup(self, stage: str) -> None:
        """Take the weights of others before a training; a checkpoint that is loaded later has its own."""
        if stage == "fit" and not self.starts_trained:
            for name, take in (
                ("autoencoder", self.model.load_autoencoder),
                ("unet", self.model.start_from),
                ("text_encoder", self.model.embed_captions),
            ):
                if (path := self.sources[name]) is not None:
                    take(path)
        data = getattr(self.trainer, "datamodule", None)
        size = getattr(data, "image_size", self.model.image_size)
        if size != self.model.image_size:
            raise ValueError(
                f"{self.hparams['model']} is for {self.model.image_size} pixels, data have {size}"
            )

    # -- training ------------------------------------------------------------------------------

    @override
    def parameter_groups(self) -> list[dict[str, Any]]:
        groups = super().parameter_groups()
        trained = [{**g, "params": [p for p in g["params"] if p.requires_grad]} for g in groups]
        return [group for group in trained if group["params"]]

    @override
    def on_fit_start(self) -> None:
        """Look at captions and latents before anything is trained."""
        self.model.require_ready()
        if self.trainer.ckpt_path is not None or isinstance(self.model.autoencoder, IdentityAutoencoder):
            return
        loader = self.trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]  # checked by the CLI
        batches = (
            batch["after"].to(self.device) for batch, _ in zip(loader, range(SPREAD_BATCHES), strict=False)
        )
        spread = latent_spread(self.model, batches)
        if self.rescale:
            self.model.rescale_latents(spread.std)
        elif not spread.sound:
            rank_zero_warn(
                f"the latents have standard deviation {spread.std:.3g}, far from the noise's 1; set"
                " model.init_args.rescale to true, or give a trained autoencoder"
            )

    def loss(self, batch: Batch, generator: torch.Generator | None = None, layout: bool = True) -> Tensor:
        """The squared error of what the network predicts at a random time step of each sample."""
        latents = self.model.encode(batch["after"], generator=generator)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        schedule = self.model.schedule
        t = torch.randint(schedule.steps, (len(latents),), generator=generator).to(latents.device)
        noisy = schedule.add_noise(latents, noise, t)
        made: Tensor = self.model(noisy, t, batch["before"], batch["change"], layout=layout)
        errors = (made - schedule.target(latents, noise, t)).square().flatten(1).mean(1)
        return (schedule.weights(t, self.snr_gamma).to(errors) * errors).mean()

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(batch, layout=float(torch.rand(())) >= self.dropout)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch["before"]))
        self.require_finite(loss)
        return loss

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss = self.loss(batch, torch.Generator().manual_seed(batch_idx))
        self.log("val/loss", loss, prog_bar=True, batch_size=len(batch["before"]), sync_dist=True)

    # -- images ----------------------------------------------------------------------------------

    def generate(self, batch: Batch, seed: int) -> Tensor:
        """The images after the change, ``[N, 3, H, W]``; a bar shows the steps."""
        generator = torch.Generator().manual_seed(seed)
        with Progress(transient=True) as bar:
            steps = bar.add_task("sampling")
            made: Tensor = sample(
                self.model,
                batch["before"],
                batch["change"],
                generator=generator,
                progress=lambda done, total: bar.update(steps, completed=done, total=total),
                **self.chain,
            )
        return made

    @override
    def on_test_start(self) -> None:
        """Look which backbones are there before anything is generated."""
        self.backbones = BackboneScores(self.model.image_size)

    @override
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        made = self.generate(batch, batch_idx)
        found = image_scores(made, batch["after"])
        found |= {f"copy_{k}": v for k, v in image_scores(batch["before"], batch["after"]).items()}
        if batch_idx == 0 and self.trainer.is_global_zero:
            samples = gallery(batch["before"], batch["change"], made)
            write_image(samples, record.test_folder(self.trainer, self) / "figures" / "samples.png")
        found |= self.backbones.update(made, batch["after"])
        size = len(made)
        self.log_dict({f"test/{k}": v for k, v in found.items()}, batch_size=size, sync_dist=True)
        if self.building is not None:
            args = (batch["after"], batch["change"], self.building)
            for name, (value, weight) in building_scores(made, *args).items():
                self.log(f"test/{name}", value, batch_size=max(1, weight), sync_dist=True)

    @override
    def on_test_epoch_end(self) -> None:
        """Measure what takes all images at once."""
        self.log_dict({f"test/{k}": v for k, v in self.backbones.compute().items()})

    @override
    def on_test_end(self) -> None:
        """Say what was not measured."""
        for name, reason in self.backbones.missing.items():
            rank_zero_info(f"{name.upper()} was not measured: {reason}")

    @override
    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.generate(batch, batch_idx)

    @override
    def prediction_callbacks(
        self,
        output: Path,
        *,
        class_names: Sequence[str] = (),
        top_k: int = 5,
        explain: Literal["tokens"] | None = None,
    ) -> list[pl.Callback]:
        if explain is not None:
            raise ValueError("--explain tokens is for classifiers; a diffusion model has no such tokens")
        return [PairWriter(output)]
