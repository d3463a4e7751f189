"""What a reconstructed scene leaves on disk: a film, Gaussians that viewers open, and corrected poses.

Every file is either whole or not there.

Axes: M times, V views, G Gaussians, H W pixels.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from PIL import Image

from zoo.files.atomic import replacing, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

_C0 = 0.28209479177387814  # the constant function among spherical harmonics


class SceneFacts(Protocol):
    """What a data module tells about a scene; see `datamodules.spike_camera.SpikeScene`."""

    @property
    def intrinsics(self) -> tuple[float, float, float, float]:
        """``(fx, fy, cx, cy)``."""
        ...

    @property
    def height(self) -> int:
        """H."""
        ...

    @property
    def width(self) -> int:
        """W."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Of the V views."""
        ...

    @property
    def scale(self) -> float:
        """``files = here / scale + offset``."""
        ...

    @property
    def offset(self) -> tuple[float, float, float]:
        """See `scale`."""
        ...


def write_image(path: Path, image: Tensor) -> None:
    """A grey ``[H, W]`` or coloured ``[3, H, W]`` image in [0, 1] as a PNG file."""
    with replacing(path) as file:
        _picture(image).save(file, format="png")


def write_film(path: Path, images: Tensor, seconds: float = 1.5, there_and_back: bool = True) -> None:
    """Images ``[M, H, W]`` or ``[M, 3, H, W]`` in [0, 1] as an endless GIF.

    Args:
        path: the file.
        images: in their order.
        seconds: how long the images take in all.
        there_and_back: whether the film runs back to its start, instead of jumping there.
    """
    pictures = [_picture(image) for image in images]
    if there_and_back:
        pictures += pictures[-2:0:-1]
    each = max(20, round(1000 * seconds / len(images)))
    with replacing(path) as file:
        pictures[0].save(file, format="gif", save_all=True, append_images=pictures[1:], duration=each, loop=0)


def write_sequence(folder: Path, images: Tensor, name: str = "frame") -> None:
    """``NAME_000.png`` ... and ``NAME.gif`` of images ``[M, H, W]`` or ``[M, 3, H, W]`` in [0, 1]."""
    for m, image in enumerate(images):
        write_image(folder / f"{name}_{m:03d}.png", image)
    write_film(folder / f"{name}.gif", images)


def write_ply(
    path: Path,
    means: Tensor,
    log_scales: Tensor,
    quaternions: Tensor,
    opacity_logits: Tensor,
    sh_dc: Tensor,
    sh_rest: Tensor | None = None,
    *,
    scale: float = 1.0,
    offset: Sequence[float] = (0.0, 0.0, 0.0),
    brightness: float = 1.0,
) -> None:
    """Gaussians under the property names of 3D Gaussian Splatting (arXiv 2308.04079), as viewers want them.

    Args:
        path: the file.
        means: ``[G, 3]``.
        log_scales: logarithms of the standard deviations, ``[G, 3]``.
        quaternions: rotations (w, x, y, z) of any length, ``[G, 4]``.
        opacity_logits: before the sigmoid, ``[G]`` or ``[G, 1]``.
        sh_dc: first coefficients of the spherical harmonics, ``[G, 3]``, or ``[G, 1]`` for grey; the colour
            is 0.5 + 0.2821 times them.
        sh_rest: further ones, ``[G, R, 3]`` or ``[G, R, 1]``, where R + 1 is a square.
        scale: of the scene, see `SceneFacts`; the file is in the coordinates of the scene's files.
        offset: of the scene.
        brightness: what colours are multiplied by; those of a spike camera are half as bright as the scene.

    Raises:
        ValueError: no Gaussians, shapes that do not fit, or numbers of coefficients that are no square.
    """
    more = sh_dc.new_zeros(len(means), 0, 3) if sh_rest is None else sh_rest.expand(-1, -1, 3)
    count = _checked(means, log_scales, quaternions, more)
    base = brightness * sh_dc + (brightness - 1) * 0.5 / _C0
    # all coefficients of red, then of green, of blue
    rest = brightness * more.transpose(1, 2).reshape(count, -1)
    parts = {
        ("x", "y", "z"): means / scale + torch.as_tensor(offset).to(means),
        ("nx", "ny", "nz"): torch.zeros_like(means),
        _numbered("f_dc", 3): base.expand(-1, 3),
        _numbered("f_rest", rest.shape[1]): rest,
        ("opacity",): opacity_logits.reshape(count, 1),
        _numbered("scale", 3): log_scales - math.log(scale),
        _numbered("rot", 4): torch.nn.functional.normalize(quaternions, dim=-1),
    }
    table = torch.cat([part.detach().float().cpu() for part in parts.values()], 1)
    if not bool(table.isfinite().all()):
        raise ValueError("the Gaussians are not finite")
    names = [name for listed in parts for name in listed]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    head += [f"property float {name}" for name in names] + ["end_header", ""]
    with replacing(path) as file:
        file.write("\n".join(head).encode("ascii"))
        file.write(np.ascontiguousarray(table.numpy(), dtype="<f4").tobytes())


def write_poses(path: Path, scene: SceneFacts, camera_to_world: Tensor) -> None:
    """Corrected poses as nerfstudio's ``transforms.json``, in the coordinates of the scene's files.

    Args:
        path: the file.
        scene: what the data module tells.
        camera_to_world: one pose a view, ``[V, 4, 4]``; cameras look along -z, y is up.

    Raises:
        ValueError: another number of poses than of views.
    """
    if camera_to_world.shape != (len(scene.names), 4, 4):
        raise ValueError(f"expected [{len(scene.names)}, 4, 4] poses, got {tuple(camera_to_world.shape)}")
    poses = camera_to_world.detach().double().cpu().clone()
    poses[:, :3, 3] = poses[:, :3, 3] / scene.scale + torch.tensor(scene.offset, dtype=torch.float64)
    fx, fy, cx, cy = scene.intrinsics
    facts: dict[str, Any] = {
        "camera_model": "OPENCV",
        **{"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": scene.width, "h": scene.height},
        "frames": [
            {"file_path": f"sharp_data/{name}.png", "transform_matrix": pose.tolist()}
            for name, pose in zip(scene.names, poses, strict=True)
        ],
    }
    write_text(path, json.dumps(facts, indent=2) + "\n")


def _checked(means: Tensor, log_scales: Tensor, quaternions: Tensor, rest: Tensor) -> int:
    """The number of Gaussians, if all have it."""
    count = len(means)
    if count == 0:
        raise ValueError("there are no Gaussians to write")
    for name, tensor, columns in (("log_scales", log_scales, 3), ("quaternions", quaternions, 4)):
        if tensor.shape != (count, columns):
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, expected {(count, columns)}")
    if math.isqrt(rest.shape[1] + 1) ** 2 != rest.shape[1] + 1 or rest.shape[0] != count:
        raise ValueError(f"sh_rest has the shape {tuple(rest.shape)}, expected [{count}, d^2 - 1, 3]")
    return count


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_{i}" for i in range(count))


def _picture(image: Tensor) -> Image.Image:
    """A PIL image of ``[H, W]``, ``[1, H, W]`` or ``[3, H, W]`` in [0, 1]."""
    pixels = (image.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    if pixels.dim() == 3:
        pixels = pixels.squeeze(0) if pixels.shape[0] == 1 else pixels.movedim(0, -1)
    return Image.fromarray(pixels.contiguous().numpy())
