"""Data modules of scenes that a spike camera saw: one sample is one view."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import Progress
from torch.utils.data import DataLoader
from typing_extensions import override

from datamodules.base import BaseDataModule
from datamodules.loading.errors import DataError
from datamodules.spike_camera.folder import read_scene
from datamodules.spike_camera.scene import FRAMES, SpikeScene, SpikeViews
from datamodules.spike_camera.simulate import NOISE_INTERVAL
from datamodules.spike_camera.synthetic import Recipe, make_scene

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datamodules.spike_camera.scene import View

SLOW = 5_000_000  # pixels times views, from which rendering takes seconds and shows a progress bar


class SceneDataModule(BaseDataModule):
    """Views of one scene; training, validation and test see the same ones.

    A scene is reconstructed from its views and judged by their true images, as in USP-Gaussian
    (arXiv 2411.10504). Batches are those of `SpikeViews`. A subclass implements `load_scene`.

    Args:
        batch_size: views in a step; 1, as the authors have it.
        kwargs: see `BaseDataModule`.
    """

    def __init__(self, *, batch_size: int = 1, **kwargs: Any) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        self._scene: SpikeScene | None = None
        for role in ("train", "val", "test"):
            self.split_names[role] = "all views"

    def load_scene(self) -> tuple[SpikeScene, Sequence[View]]:
        """Return the scene and its views; called once a process."""
        raise NotImplementedError

    @property
    def scene(self) -> SpikeScene:
        """What is known about the scene, once `setup` has run.

        Raises:
            DataError: `setup` has not run.
        """
        if self._scene is None:
            raise DataError(f"{type(self).__name__}.scene is not there yet: call setup() first")
        return self._scene

    @override
    def setup(self, stage: str | None = None) -> None:
        """Read or make the scene, once."""
        if self._scene is None:
            self._scene, views = self.load_scene()
            self.train_set = self.val_set = self.test_set = SpikeViews(self._scene, views)

    @override
    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the views in their order."""
        self.setup()
        return DataLoader(
            self._loaded("test_set"),
            batch_size=self.eval_batch_size or self.batch_size,
            **self._loader_options(self.in_memory),
        )

    @override
    def described(self) -> dict[str, str]:
        if self._scene is None:
            return {}
        size = f"{FRAMES} frames of {self._scene.height}x{self._scene.width}"
        return {"views": f"{len(self._scene.names)}, {size}", "points": f"{len(self._scene.points):,}"}


class SyntheticSpikeSceneDataModule(SceneDataModule):
    """A made-up scene in memory: Gaussians, filmed by cameras that shake.

    Args:
        scene_seed: of the scene, the cameras' motions, and the noise; ``seed`` is that of the order.
        views: V.
        height: H.
        width: W.
        gaussians: how many there are.
        shake: deviations of the camera's motion during an exposure: translation, rotation in radians.
        pose_noise: deviations of the errors of the initial poses: translation, rotation in radians.
        noise: whether the sensor fires without light now and then.
        kwargs: see `BaseDataModule`.

    Raises:
        ValueError: sizes or deviations out of range.
    """

    title = "made-up spike camera scene"

    def __init__(
        self,
        *,
        scene_seed: int = 0,
        views: int = 6,
        height: int = 24,
        width: int = 32,
        gaussians: int = 60,
        shake: tuple[float, float] = (0.35, 0.02),
        pose_noise: tuple[float, float] = (0.0, 0.0),
        noise: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value, least in (
            ("views", views, 2),
            ("height", height, 1),
            ("width", width, 1),
            ("gaussians", gaussians, 1),
            ("shake", min(shake), 0),
            ("pose_noise", min(pose_noise), 0),
            ("scene_seed", scene_seed, 0),
        ):
            if not value >= least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.recipe = Recipe(
            seed=scene_seed,
            views=views,
            height=height,
            width=width,
            gaussians=gaussians,
            shake=(shake[0], shake[1]),
            pose_noise=(pose_noise[0], pose_noise[1]),
            noise_interval=NOISE_INTERVAL if noise else None,
        )

    @override
    def load_scene(self) -> tuple[SpikeScene, Sequence[View]]:
        recipe = self.recipe
        slow = recipe.views * recipe.height * recipe.width * recipe.gaussians > SLOW
        with Progress(disable=not slow, transient=True) as bar:
            task = bar.add_task("filming a made-up scene", total=recipe.views)
            return make_scene(recipe, lambda view: bar.update(task, completed=view + 1))


class SpikeSceneDataModule(SceneDataModule):
    """A scene in a folder: ``spike_data/*.dat``, ``sharp_data/*.png``, ``transforms.json``, sparse points.

    This is the layout of USP-Gaussian's data: 600 x 400 pixels of rendered scenes, 400 x 250 of real ones.

    Args:
        root: the folder.
        height: H of the streams; missing: as ``transforms.json`` says.
        width: W of the streams.
        sharp: whether ``sharp_data`` holds true images; false for real scenes, where they are placeholders.
        normalize: centre the cameras and scale them into [-1, 1], as nerfstudio does; learning rates of the
            Gaussians are meant for it.
        kwargs: see `BaseDataModule`.
    """

    in_memory = False

    def __init__(
        self,
        *,
        root: str,
        height: int | None = None,
        width: int | None = None,
        sharp: bool = True,
        normalize: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (("height", height), ("width", width)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.root = Path(root).expanduser()
        self.height, self.width = height, width
        self.sharp, self.normalize = sharp, normalize
        self.title = self.root.name

    @override
    def prepare_data(self) -> None:
        """Look whether the folder is there, before anything else is done."""
        if not self.root.is_dir():
            raise DataError(
                f"there is no folder {self.root}; a scene has spike_data/*.dat, transforms.json and sparse"
                " points"
            )

    @override
    def load_scene(self) -> tuple[SpikeScene, Sequence[View]]:
        self.prepare_data()
        return read_scene(
            self.root, height=self.height, width=self.width, sharp=self.sharp, normalize=self.normalize
        )
