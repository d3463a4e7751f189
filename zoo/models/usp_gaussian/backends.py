"""Which rasteriser draws: gsplat on CUDA, our own elsewhere."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from zoo.models.usp_gaussian.rasterizer import Rendering, TorchRasterizer

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.models.usp_gaussian.rasterizer import Cameras, Rasterizer, Splats

Backend = Literal["auto", "torch", "gsplat"]


def check(backend: Backend) -> None:
    """Refuse an unknown rasteriser, and one that this machine cannot run.

    Raises:
        ValueError: an unknown name.
        ModuleNotFoundError: gsplat is asked for and not installed; names the extra.
        RuntimeError: gsplat is asked for without CUDA.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"rasterizer must be 'auto', 'torch' or 'gsplat', got {backend!r}")
    if backend != "gsplat":
        return
    if importlib.util.find_spec("gsplat") is None:
        raise ModuleNotFoundError(
            "rasterizer gsplat is not installed: pip install 'fulgurite[splat]'; 'torch' draws without it",
            name="gsplat",
        )
    if not torch.cuda.is_available():
        raise RuntimeError(
            "rasterizer gsplat needs a CUDA device, and torch sees none; 'torch' draws on the CPU"
        )


class GsplatRasterizer:
    """The CUDA kernels of gsplat (Apache-2.0).

    Args:
        antialiased: see `zoo.models.usp_gaussian.rasterizer.TorchRasterizer`.
    """

    def __init__(self, *, antialiased: bool = True) -> None:
        self.antialiased = antialiased

    def __call__(
        self, splats: Splats, cameras: Cameras, *, degree: int = 0, background: Tensor | None = None
    ) -> Rendering:
        """Draw; see `zoo.models.usp_gaussian.rasterizer.Rasterizer`."""
        from gsplat import rasterization

        poses, lens = cameras.world_to_camera, cameras.intrinsics
        matrix = poses.new_tensor([[lens.fx, 0, lens.cx], [0, lens.fy, lens.cy], [0, 0, 1]])
        image, alpha, told = rasterization(
            means=splats.means,
            quats=splats.quaternions,
            scales=splats.scales,
            opacities=splats.opacities,
            colors=splats.harmonics,
            viewmats=poses,
            Ks=matrix.expand(len(poses), 3, 3),
            width=cameras.width,
            height=cameras.height,
            sh_degree=degree,
            packed=False,
            backgrounds=None if background is None else background.expand(len(poses), -1),
            rasterize_mode="antialiased" if self.antialiased else "classic",
        )
        radii: Any = told["radii"]
        radii = radii.amax(dim=-1) if radii.dim() == 3 else radii
        return Rendering(image=image, alpha=alpha, means=told["means2d"], radii=radii.to(image.dtype))


def choose(backend: Backend, device: torch.device, *, antialiased: bool = True) -> Rasterizer:
    """The rasteriser of this name; ``"auto"`` takes gsplat where it is installed and the scene is on CUDA.

    Raises:
        ValueError: an unknown name.
        ModuleNotFoundError: gsplat is asked for and not installed.
        RuntimeError: gsplat is asked for without CUDA.
    """
    check(backend)
    if backend == "auto":
        backend = "gsplat" if device.type == "cuda" and importlib.util.find_spec("gsplat") else "torch"
    if backend == "gsplat" and device.type != "cuda":
        raise RuntimeError(f"rasterizer gsplat draws on CUDA, and the scene is on {device.type}")
    kind = GsplatRasterizer if backend == "gsplat" else TorchRasterizer
    return kind(antialiased=antialiased)
