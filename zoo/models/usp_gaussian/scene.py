"""USP-Gaussian (arXiv 2411.10504): Gaussians, how the camera moved, and Recon-Net, for one scene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import override

from zoo.base import ZooModel
from zoo.build import build_model
from zoo.models.usp_gaussian.backends import check, choose
from zoo.models.usp_gaussian.gaussians import Gaussians
from zoo.models.usp_gaussian.rasterizer import Cameras, Rendering
from zoo.models.usp_gaussian.recon_net import usp_recon_net
from zoo.models.usp_gaussian.trajectory import Kind, Trajectory
from zoo.registry import register_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.models.usp_gaussian.backends import Backend
    from zoo.models.usp_gaussian.projection import Intrinsics

TO_OPENGL = (1.0, -1.0, -1.0, 1.0)  # nerfstudio's cameras look along -z, with y up


class USPGaussian(ZooModel):
    """A scene seen by a spike camera.

    Args:
        num_gaussians: N; training changes it.
        num_views: V, views whose camera motion is known.
        sh_degree: of the spherical harmonics.
        trajectory: ``"linear"``, ``"cubic"`` or ``"bezier"``.
        knots_std: of the trajectory's first knots.
        recon_net: arguments of ``usp_recon_net``.
        rasterizer: ``"gsplat"`` (CUDA), ``"torch"``, or ``"auto"``.
        antialiased: multiply opacities by the share that the blur of the pixels leaves.

    Attributes:
        gaussians: the Gaussians.
        trajectory: motions of the camera during each view's exposure.
        recon_net: Recon-Net.
    """

    recorded = ("num_gaussians", "num_views")

    def __init__(
        self,
        num_gaussians: int = 10_000,
        num_views: int = 1,
        sh_degree: int = 3,
        trajectory: Kind = "linear",
        knots_std: float = 1e-5,
        recon_net: dict[str, Any] | None = None,
        rasterizer: Backend = "auto",
        antialiased: bool = True,
    ) -> None:
        super().__init__()
        self.antialiased = antialiased
        self.rasterizer: Backend = rasterizer
        if rasterizer != "gsplat":  # a scene that gsplat draws may be built and saved anywhere
            check(rasterizer)
        self.gaussians = Gaussians(num_gaussians, sh_degree)
        self.trajectory = Trajectory(num_views, trajectory, knots_std)
        self.recon_net = usp_recon_net(**(recon_net or {}))
        self.knots_std = knots_std
        self.time_steps = self.recon_net.time_steps

    @property
    def num_gaussians(self) -> int:
        """N at present."""
        return len(self.gaussians)

    @property
    def num_views(self) -> int:
        """V at present."""
        return len(self.trajectory.knots)

    def note_sizes(self) -> None:
        """Have ``model_args`` say how many Gaussians and views there are now."""
        if self.model_args:
            self.model_args |= {"num_gaussians": self.num_gaussians, "num_views": self.num_views}

    def resize(self, gaussians: int, views: int) -> None:
        """Make room for a scene of another size; its values are to be loaded or set."""
        self.gaussians.resize(gaussians)
        if views != self.num_views:
            device = self.trajectory.knots.device
            kind = self.trajectory.kind
            self.trajectory = Trajectory(views, kind, self.knots_std).to(device)
        self.note_sizes()

    def cameras(
        self,
        camera_to_world: Tensor,
        view: int,
        u: Sequence[float],
        intrinsics: Intrinsics,
        size: tuple[int, int],
    ) -> Cameras:
        """The cameras at positions of a view's exposure.

        Args:
            camera_to_world: first pose of the view ``[4, 4]``, with y up and looking along -z.
            view: its number.
            u: positions in [0, 1], U of them.
            intrinsics: of the camera.
            size: H, W.
        """
        where = torch.tensor([view], device=camera_to_world.device)
        moved = camera_to_world @ self.trajectory(where, u)[0]
        poses = moved * moved.new_tensor(TO_OPENGL)
        return Cameras(world_to_camera=inverted(poses), intrinsics=intrinsics, height=size[0], width=size[1])

    @override
    def forward(
        self, cameras: Cameras, *, degree: int | None = None, background: Tensor | None = None
    ) -> Rendering:
        """Draw the scene.

        Args:
            cameras: V views.
            degree: of the spherical harmonics; missing: all that there are.
            background: colour behind everything ``[3]``; missing: black.

        Returns:
            ``image [V, H, W, 3]`` in spikes a frame, and more.

        Raises:
            ModuleNotFoundError: gsplat is asked for and not installed.
            RuntimeError: gsplat is asked for without CUDA.
        """
        draw = choose(self.rasterizer, self.gaussians.means.device, antialiased=self.antialiased)
        degree = self.gaussians.degree if degree is None else min(degree, self.gaussians.degree)
        return draw(self.gaussians.splats(), cameras, degree=degree, background=background)

    @override
    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        means, knots = (state_dict.get(f"{prefix}{k}") for k in ("gaussians.means", "trajectory.knots"))
        if isinstance(means, Tensor) and isinstance(knots, Tensor) and len(means) and len(knots):
            self.resize(len(means), len(knots))
        super()._load_from_state_dict(state_dict, prefix, *args)


class SpikingUSPGaussian(USPGaussian):
    """The same with a spiking Recon-Net, which runs over T steps."""

    takes_time_steps = True


def inverted(poses: Tensor) -> Tensor:
    """Rigid motions ``[V, 4, 4]`` the other way round."""
    back = poses[:, :3, :3].mT
    upper = torch.cat([back, -(back @ poses[:, :3, 3:])], dim=-1)
    return torch.cat([upper, poses[:, 3:]], dim=1)


@register_model(
    paper="2411.10504",
    task="reconstruction",
    cfg={"camera": "pinhole, spikes at 40 kHz", "output": "images [V, H, W, 3] and Recon-Net's [B, 1, H, W]"},
    note="a scene is trained from its own streams, see configs/usp_gaussian",
    small={"num_gaussians": 20, "num_views": 2, "sh_degree": 1, "recon_net": {"channels": (4, 8, 4, 4)}},
)
def usp_gaussian(**kwargs: Any) -> USPGaussian:
    """Gaussians with spherical harmonics, camera motion, and Recon-Net, trained together for each scene."""
    spiking = (kwargs.get("recon_net") or {}).get("neuron") is not None
    return build_model(SpikingUSPGaussian if spiking else USPGaussian, "usp_gaussian", {}, **kwargs)
