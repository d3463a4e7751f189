"""USP-Gaussian (arXiv 2411.10504): image reconstruction, pose correction and Gaussian splatting at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import override

from lightning_modules.base import BaseTask
from lightning_modules.callbacks.scene_writer import SceneWriter
from lightning_modules.optimizer import GroupSchedule
from lightning_modules.reconstruction_losses import loss_terms, scale_regularizer
from lightning_modules.scene_imaging import MIDDLE, Exposure, Lens, Made, exposures, reconstruct, render
from lightning_modules.scene_optimizer import OF_GAUSSIANS, HeldGradient, groups, rates_of
from lightning_modules.scene_scores import baseline_scores, scene_scores
from lightning_modules.source import as_plain
from lightning_modules.start import build
from spiking import camera
from zoo.models.usp_gaussian import Densification, Densifier, USPGaussian
from zoo.models.usp_gaussian.backends import check

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import lightning.pytorch as pl

    from zoo.models.usp_gaussian import Rendering

Mode = Literal["joint", "gs_only", "recon_only", "static"]
PARTS: dict[str, tuple[str, ...]] = {  # what is trained
    "joint": (*OF_GAUSSIANS, "knots", "recon_net"),
    "gs_only": (*OF_GAUSSIANS, "knots"),
    "recon_only": ("recon_net",),
    "static": OF_GAUSSIANS,
}
REGULARIZE_EVERY = 10  # steps


class SpikeReconstructionTask(BaseTask):
    """Trains a scene from the streams of a spike camera that moves while it looks.

    Batches are dictionaries of B views: ``spikes [B, T, H, W]``, ``view [B]`` (numbers),
    ``camera_to_world [B, 4, 4]`` (y up, looking along -z), and where true frames are known ``sharp
    [B, K, H, W]`` with ``sharp_frames [B, K]``. The data module's ``scene`` tells the camera and the first
    points. Four modes show what each part is good for:

    - ``joint``: Gaussians, trajectory and Recon-Net, which teach each other (the method);
    - ``gs_only``: Gaussians and trajectory, from the long exposure alone;
    - ``recon_only``: Recon-Net alone;
    - ``static``: Gaussians at the first poses, as if the camera had stood still.

    Args:
        model: name of an entry, ``usp_gaussian``.
        model_args: its arguments.
        mode: see above.
        virtual_views: M, times of an exposure; 13 are the authors'.
        flip: let trajectory and Recon-Net run in opposite directions, which no blur can tell apart.
        multi_reblur: hold Recon-Net to exposures of several lengths; false: to the longest alone, whose
            trivial solution is that every image is the long exposure.
        binning: of the long window, ``"strided"`` as the authors' code, or ``"consecutive"``.
        rates: learning rates by part (see `lightning_modules.scene_optimizer.RATES`), one or the first and
            the last; between them they fall exponentially.
        knots_every: steps whose gradients make one step of the trajectory.
        densification: when Gaussians are added and taken away, see
            `zoo.models.usp_gaussian.Densification`; ``false`` keeps their number.
        degree_every: steps until the next degree of spherical harmonics is used.
        opacity: of the first Gaussians.
        scale: standard deviation of the first Gaussians, units of the scene; missing: by their distances.
        background: ``"random"`` colours in training, so that nothing hides there, or ``"black"``.
        brightness: what images are multiplied by before they are compared with true ones; 2 is the
            authors', missing: what the camera's rate says.

    Raises:
        ValueError: a setting that makes no sense.
    """

    method: ClassVar[str] = "USP-Gaussian"
    paper: ClassVar[str | None] = "2411.10504"
    curves_over: ClassVar[Literal["epoch", "step"]] = "step"
    monitor: ClassVar[str] = "val/loss"
    mode: ClassVar[Literal["min", "max"]] = "min"
    output: ClassVar[str] = "scene"

    def __init__(
        self,
        model: str = "usp_gaussian",
        model_args: dict[str, Any] | None = None,
        mode: Mode = "joint",
        virtual_views: int = 13,
        flip: bool = True,
        multi_reblur: bool = True,
        binning: camera.Binning = "strided",
        rates: dict[str, float | list[float]] | None = None,
        knots_every: int = 25,
        densification: dict[str, float] | bool = True,
        degree_every: int = 1000,
        opacity: float = 0.1,
        scale: float | None = None,
        background: Literal["random", "black"] = "random",
        brightness: float | None = 2.0,
    ) -> None:
        super().__init__(optimizer="adam")
        if mode not in PARTS:
            raise ValueError(f"mode must be one of {', '.join(map(repr, PARTS))}, got {mode!r}")
        if background not in ("random", "black"):
            raise ValueError(f"background must be 'random' or 'black', got {background!r}")
        if not 0 < opacity < 1 or (scale is not None and scale <= 0) or degree_every < 1:
            found = f"{opacity!r}, {scale!r} and {degree_every!r}"
            raise ValueError(
                f"opacity must lie in (0, 1), scale be positive and degree_every at least 1, got {found}"
            )
        self.save_hyperparameters()
        built: Any = build(model, dict(model_args or {}))
        if not isinstance(built, USPGaussian):
            raise ValueError(f"model must be a scene such as 'usp_gaussian', got {model!r}")
        check(built.rasterizer)
        self.model: USPGaussian = built
        self.variant: Mode = mode
        self.frames = camera.virtual_frames(virtual_views)
        self.flip, self.multi_reblur, self.binning = flip, multi_reblur, binning
        self.rates = rates_of(rates)
        self.degree_every, self.background, self.brightness = degree_every, background, brightness
        self.first_opacity, self.first_scale = opacity, scale
        self.held = HeldGradient(self.model.trajectory.knots, knots_every)
        self.densifier = self._densifier(densification)
        self.lens: Lens
        self._drawn: list[Rendering] = []

    def _densifier(self, given: dict[str, float] | bool) -> Densifier | None:
        if given is False or self.variant == "recon_only":
            return None
        settings = as_plain("densification", Densification, given if isinstance(given, dict) else {})
        return Densifier(settings, self.model.num_gaussians)

    @property
    @override
    def title(self) -> str:
        return f"{self.hparams['model']} ({self.variant})"

    @override
    def trained_by(self) -> tuple[str, str | None]:
        return f"{self.method}, mode {self.variant}", self.paper

    # -- the scene -----------------------------------------------------------------------------

    @override
    def setup(self, stage: str) -> None:
        """Take over what the data say of the camera; a training starts from their points.

        Raises:
            ValueError: data without a scene, one view where several are needed, or weights of other views.
        """
        scene = getattr(getattr(self.trainer, "datamodule", None), "scene", None)
        if scene is None:
            raise ValueError("the data have no scene; those of SyntheticSpikeSceneDataModule and its like do")
        self.lens = Lens.of(scene)
        views = len(scene.camera_to_world)
        self._check_views(views)
        if self.starts_trained and views != self.model.num_views:
            raise ValueError(f"the weights are of {self.model.num_views} views, the data have {views}")
        self.model.resize(self.model.num_gaussians, views)
        if stage == "fit" and not self.starts_trained and self.variant != "recon_only":
            self.model.gaussians.start_from(
                scene.points, scene.colors, opacity=self.first_opacity, scale=self.first_scale
            )
            self.model.note_sizes()
        self._follow_sizes()

    def _check_views(self, views: int) -> None:
        if views < 2 and self.variant != "recon_only":
            raise ValueError(f"the scene has {views} view, and depth shows in two; 'recon_only' takes one")
        if self.densifier is not None and self.trainer.world_size > 1:
            raise ValueError("Gaussians are added by one process: densification: false, or devices: 1")

    def _follow_sizes(self) -> None:
        self.held.resize(self.model.trajectory.knots)
        if self.densifier is not None and len(self.densifier.seen) != self.model.num_gaussians:
            self.densifier.resize(self.model.num_gaussians)

    @override
    def match_state(self, state: Mapping[str, Tensor]) -> None:
        means, knots = (state.get(f"model.{k}") for k in ("gaussians.means", "trajectory.knots"))
        if means is None or knots is None or not len(means) or not len(knots):
            return
        data = None if self._trainer is None else getattr(self.trainer, "datamodule", None)
        scene = getattr(data, "scene", None)
        if scene is not None and len(scene.camera_to_world) != len(knots):
            views = len(scene.camera_to_world)
            raise ValueError(f"the checkpoint is of a scene with {len(knots)} views, the data have {views}")
        self.model.resize(len(means), len(knots))
        self._follow_sizes()

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        hyper = checkpoint.get("hyper_parameters")
        if hyper is not None:  # the network that `zoo.load` builds has this many
            sizes = {"num_gaussians": self.model.num_gaussians, "num_views": self.model.num_views}
            hyper["model_args"] = {**(hyper.get("model_args") or {}), **sizes}

    # -- images --------------------------------------------------------------------------------

    @override
    def forward(self, exposure: Exposure, frames: Sequence[int]) -> Made:
        rendered = reconstructed = None
        if self.variant != "recon_only":
            drawn = self._render(exposure, frames)
            if self.training and self.densifier is not None and drawn.means.requires_grad:
                drawn.means.retain_grad()
                self._drawn.append(drawn)
            rendered = drawn.image.permute(0, 3, 1, 2)
        if self.variant in ("joint", "recon_only"):
            reconstructed = reconstruct(self.model, exposure, frames, self.binning)
        return Made(rendered, reconstructed)

    def _render(self, exposure: Exposure, frames: Sequence[int]) -> Rendering:
        if not self.training:
            return render(self.model, exposure, frames, self.lens)
        random = self.background == "random"
        background = torch.rand(3, device=self.device) if random else None
        degree = self.global_step // self.degree_every
        return render(self.model, exposure, frames, self.lens, degree=degree, background=background)

    # -- losses --------------------------------------------------------------------------------

    def losses(self, exposure: Exposure) -> dict[str, Tensor]:
        """The terms of the loss of one view, all of weight 1."""
        frames = [MIDDLE] if self.variant == "static" else self.frames
        made = self(exposure, frames)
        choice = {"flip": self.flip, "multi_reblur": self.multi_reblur}
        return loss_terms(made.rendered, made.reconstructed, exposure.spikes, frames, **choice)

    def _mean_losses(self, batch: Mapping[str, Tensor], stage: str) -> Tensor:
        every = [self.losses(exposure) for exposure in exposures(batch)]
        terms = {name: torch.stack([one[name] for one in every]).mean() for name in every[0]}
        loss = torch.stack(list(terms.values())).sum()
        if stage != "test":
            told = {f"{stage}/{name}": value.detach() for name, value in terms.items()}
            self.log_dict(told, batch_size=len(every))
        self.log(f"{stage}/loss", loss.detach(), prog_bar=True, batch_size=len(every))
        return loss

    @override
    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        self._drawn = []
        loss = self._mean_losses(batch, "train")
        if self.variant != "recon_only" and self.global_step % REGULARIZE_EVERY == 0:
            loss = loss + scale_regularizer(self.model.gaussians.log_scales)
        self.require_finite(loss)
        return loss

    @override
    def on_after_backward(self) -> None:
        if self.densifier is not None:
            for rendering in self._drawn:
                self.densifier.watch(rendering, self.global_step)
        self._drawn = []

    # -- optimiser -----------------------------------------------------------------------------

    @override
    def parameter_groups(self) -> list[dict[str, Any]]:
        return groups(self.model, PARTS[self.variant], self.rates)

    @override
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameter_groups(), eps=1e-15)
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            raise ValueError("the schedule needs an end: set trainer.max_steps or trainer.max_epochs")
        schedule = GroupSchedule(optimizer, max(1, int(total)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @override
    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Let the knots step once in many steps."""
        self.held.hold(self.model.trajectory.knots, self.global_step + 1)

    @override
    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and refine at once: a checkpoint of this step must already have the new Gaussians."""
        super().optimizer_step(*args, **kwargs)
        if self.densifier is None:
            return
        optimizer: Any = self.trainer.optimizers[0]
        gaussians, views = self.model.gaussians, self.model.num_views
        if self.densifier.refine(gaussians, optimizer, self.global_step + 1, views) is not None:
            self.model.note_sizes()
        self.log("gaussians", float(len(gaussians)), prog_bar=True)

    # -- evaluation ----------------------------------------------------------------------------

    def _evaluate(self, batch: Mapping[str, Tensor], stage: str) -> None:
        self._mean_losses(batch, stage)
        if batch.get("sharp") is None or not batch["sharp"].shape[1]:
            return
        for exposure, sharp, at in zip(
            exposures(batch), batch["sharp"], batch["sharp_frames"].tolist(), strict=True
        ):
            found = scene_scores(self(exposure, self.frames), self.frames, sharp, at, self.factor)
            if stage == "test":
                found |= baseline_scores(exposure.spikes, sharp, at, self.factor)
            self.log_dict({f"{stage}/{k}": v for k, v in found.items()}, batch_size=1)

    @property
    def factor(self) -> float:
        """What images in spikes a frame are multiplied by to be as bright as the scene."""
        return 1 / self.lens.rate if self.brightness is None else self.brightness

    @override
    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "val")

    @override
    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "test")

    # -- prediction ----------------------------------------------------------------------------

    @override
    def predict_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[int, Made]:
        """Images of each view along its trajectory, in intensities, by the view's number."""
        found = {}
        for exposure in exposures(batch):
            made = self(exposure, self.frames)
            found[exposure.view] = Made(*(None if x is None else self.factor * x for x in made))
        return found

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
            raise ValueError("--explain tokens is for classifiers; a scene has no tokens")
        return [SceneWriter(output)]
