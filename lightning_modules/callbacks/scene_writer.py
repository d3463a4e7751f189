"""What ``fulgurite predict`` writes of a scene: images along the trajectories, Gaussians, and poses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lightning_modules.scene_imaging import corrected_poses
from lightning_modules.scene_outputs import write_ply, write_poses, write_sequence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import lightning.pytorch as pl

    from lightning_modules.scene_imaging import Made


class SceneWriter(BasePredictionWriter):
    """Writes a folder view by view, so that what is finished stays if the rest is cut off.

    ``rendered/VIEW`` and ``reconstructed/VIEW`` hold an image for each virtual time and a GIF of them all;
    ``scene.ply`` the Gaussians, for viewers of Gaussian splats; ``transforms.json`` the corrected poses in
    nerfstudio's form.

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
        prediction: Mapping[int, Made],
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        names = _scene(trainer).names
        for view, made in prediction.items():
            kinds = {"rendered": made.grey, "reconstructed": made.reconstructed}
            for kind, images in kinds.items():
                if images is not None:
                    write_sequence(self.output / kind / str(names[view]), images.clamp(0, 1))
            self.count += 1

    @override
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        task: Any = pl_module
        if not trainer.is_global_zero:
            return
        if task.variant == "recon_only":
            rank_zero_info(f"{self.count} views written to {self.output}; this mode has no Gaussians")
            return
        model, scene, gaussians = task.model, _scene(trainer), task.model.gaussians
        values = (
            gaussians.means,
            gaussians.log_scales,
            gaussians.quaternions,
            gaussians.opacity_logits,
            gaussians.base,
            gaussians.rest,
        )
        place = {"scale": scene.scale, "offset": scene.offset, "brightness": task.factor}
        write_ply(self.output / "scene.ply", *values, **place)
        poses = corrected_poses(model, scene.camera_to_world.to(gaussians.means.device))
        write_poses(self.output / "transforms.json", scene, poses)
        rank_zero_info(f"{self.count} views, {len(gaussians)} Gaussians and poses written to {self.output}")


def _scene(trainer: pl.Trainer) -> Any:
    return getattr(trainer, "datamodule").scene  # noqa: B009 - Lightning adds it when it runs
