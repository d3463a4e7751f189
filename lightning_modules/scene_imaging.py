"""Images of an exposure by the two networks of a scene, at any of its frames.

Axes: B views of a batch, V of the scene, T frames, M virtual times, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from spiking import camera
from zoo.models.usp_gaussian import Intrinsics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zoo.models.usp_gaussian import Rendering, USPGaussian

MIDDLE = sum(camera.EXPOSURE) // 2  # frame


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """One view while the camera moves.

    Attributes:
        view: its number.
        pose: camera-to-world matrix as it was estimated ``[4, 4]``.
        spikes: ``[T, H, W]``.
    """

    view: int
    pose: Tensor
    spikes: Tensor


class Made(NamedTuple):
    """Images of an exposure at M virtual times, in spikes a frame; None where none were made.

    ``rendered [M, 3, H, W]`` are the Gaussians', ``reconstructed [M, H, W]`` Recon-Net's.
    """

    rendered: Tensor | None
    reconstructed: Tensor | None

    @property
    def grey(self) -> Tensor | None:
        """``rendered`` without colours ``[M, H, W]``."""
        return None if self.rendered is None else self.rendered.mean(dim=1)


@dataclass(frozen=True, kw_only=True)
class Lens:
    """What all views of a scene share.

    Attributes:
        intrinsics: of the camera.
        size: H, W.
        rate: spikes a frame of intensity 1.
    """

    intrinsics: Intrinsics
    size: tuple[int, int]
    rate: float = camera.RATE

    @classmethod
    def of(cls, scene: Any) -> Lens:
        """That of a data module's ``scene``."""
        fx, fy, cx, cy = (float(value) for value in scene.intrinsics)
        size = (int(scene.height), int(scene.width))
        return cls(intrinsics=Intrinsics(fx=fx, fy=fy, cx=cx, cy=cy), size=size, rate=float(scene.rate))


def exposures(batch: Mapping[str, Tensor]) -> list[Exposure]:
    """The views of a batch."""
    parts = zip(batch["view"].tolist(), batch["camera_to_world"], batch["spikes"], strict=True)
    return [Exposure(view=view, pose=pose, spikes=spikes) for view, pose, spikes in parts]


def position(frame: int) -> float:
    """Where in the exposure a frame lies, from 0 to 1."""
    first, last = camera.EXPOSURE
    return (frame - first) / (last - first)


def render(
    model: USPGaussian,
    exposure: Exposure,
    frames: Sequence[int],
    lens: Lens,
    *,
    degree: int | None = None,
    background: Tensor | None = None,
) -> Rendering:
    """The Gaussians as the camera sees them at these frames.

    Args:
        model: the scene.
        exposure: whose trajectory the camera follows.
        frames: M of them.
        lens: of the camera.
        degree: of the spherical harmonics; missing: all.
        background: colour behind everything ``[3]``; missing: black.
    """
    u = [position(frame) for frame in frames]
    seen = model.cameras(exposure.pose, exposure.view, u, lens.intrinsics, lens.size)
    return cast("Rendering", model(seen, degree=degree, background=background))


def reconstruct(
    model: USPGaussian, exposure: Exposure, frames: Sequence[int], binning: camera.Binning
) -> Tensor:
    """Recon-Net's images at these frames, ``[M, H, W]``."""
    network, spikes = model.recon_net, exposure.spikes
    short = camera.short_windows(spikes, frames, network.short)
    voxel = camera.long_voxel(spikes, binning).unsqueeze(0) if network.inputs == "two" else None
    tau = torch.tensor([position(frame) for frame in frames], device=spikes.device)
    made: Tensor = network(short, voxel, tau)
    return made[:, 0]


@torch.no_grad()
def corrected_poses(model: USPGaussian, poses: Tensor) -> Tensor:
    """Camera-to-world matrices in the middle of all exposures, from the estimated ones ``[V, 4, 4]``."""
    views = torch.arange(len(poses), device=poses.device)
    corrected: Tensor = poses @ model.trajectory(views, [position(MIDDLE)])[:, 0]
    return corrected
