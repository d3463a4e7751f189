"""Scenes on disk as USP-Gaussian has them: spike streams beside nerfstudio's ``transforms.json``.

``spike_data/NAME.dat``, ``sharp_data/NAME.png`` (the true image of the middle frame, where there is one),
``transforms.json`` and COLMAP's sparse points.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from datamodules.loading.errors import DataError
from datamodules.spike_camera.dat import DatFile
from datamodules.spike_camera.points import read_points
from datamodules.spike_camera.scene import FRAMES, MIDDLE, SpikeScene, check_poses
from datamodules.spike_camera.simulate import GAIN, THRESHOLD, grey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

GREY_TEST = (0.2989, 0.5870, 0.1140)  # of true images; frames to simulate have other weights
POINTS = ("sparse_pc.ply", "colmap/sparse/0/points3D.bin", "colmap/sparse/0/points3D.txt")
_INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "h", "w")
BENT = 0.05  # coefficients of distortion above it are worth a warning
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


@dataclass(frozen=True, kw_only=True)
class FileView:
    """A view whose stream and true image lie in files."""

    stream: DatFile
    image: Path | None

    def spikes(self) -> npt.NDArray[np.uint8]:
        """The 177 frames in the middle, ``[T, H, W]``."""
        return self.stream.central(FRAMES)

    def sharp(self) -> tuple[npt.NDArray[np.float32], Sequence[int]]:
        """The true image of the middle frame, ``[1, H, W]``, or none."""
        size = (self.stream.height, self.stream.width)
        if self.image is None:
            return np.empty((0, *size), dtype=np.float32), []
        return read_grey(self.image, size)[None], [MIDDLE]


def read_grey(path: Path, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """An image as grey values in [0, 1], ``[H, W]``.

    Raises:
        DataError: it cannot be read, or has another size.
    """
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error
    if pixels.shape[:2] != size:
        raise DataError(
            f"{path} has {pixels.shape[0]} x {pixels.shape[1]} pixels, its stream {size[0]} x {size[1]}"
        )
    values: npt.NDArray[np.float32] = grey(pixels, GREY_TEST).clip(0, 1)
    return values


def read_scene(
    root: Path,
    *,
    height: int | None = None,
    width: int | None = None,
    sharp: bool = True,
    normalize: bool = True,
) -> tuple[SpikeScene, list[FileView]]:
    """Read what is known of a scene, and open its streams.

    Args:
        root: the folder.
        height: H of the streams, if it is not that of ``transforms.json``.
        width: W.
        sharp: whether ``sharp_data`` holds true images; those of real scenes are placeholders.
        normalize: centre the cameras and scale them into [-1, 1], as nerfstudio does.

    Raises:
        DataError: a file is missing, unreadable, or not what it should be.
    """
    facts = _transforms(root)
    frames = sorted(facts["frames"], key=lambda frame: str(frame.get("file_path", "")))
    names = tuple(Path(str(frame["file_path"])).stem for frame in frames)
    fx, fy, cx, cy, h, w = (float(facts[name]) for name in _INTRINSICS)
    height, width = height or int(h), width or int(w)
    poses = _poses(frames, names)
    points, colors = _points(root, facts)
    offset, scale = np.zeros(3), 1.0
    if normalize:
        offset = poses[:, :3, 3].mean(0)
        largest = np.abs(poses[:, :3, 3] - offset).max()
        scale = 1.0 / largest if largest > 0 else 1.0
    poses[:, :3, 3] = (poses[:, :3, 3] - offset) * scale
    scene = SpikeScene(
        camera_to_world=torch.from_numpy(poses).float(),
        intrinsics=(fx, fy, cx, cy),
        height=height,
        width=width,
        points=torch.from_numpy((points - offset) * scale).float(),
        colors=torch.from_numpy(colors).float(),
        names=names,
        rate=GAIN / THRESHOLD,
        scale=scale,
        offset=(float(offset[0]), float(offset[1]), float(offset[2])),
    )
    streams = [
        DatFile(path, height=height, width=width) for path in _matched(root / "spike_data", ".dat", names)
    ]
    for stream in streams:
        if len(stream) < FRAMES:
            raise DataError(
                f"{stream.path} has {len(stream)} frames, {FRAMES} are needed; see height and width"
            )
    images: list[Path | None] = [None] * len(names)
    if sharp and (root / "sharp_data").is_dir():
        images = list(_matched(root / "sharp_data", ".png", names))
    return scene, [FileView(stream=s, image=i) for s, i in zip(streams, images, strict=True)]


def _transforms(root: Path) -> dict[str, Any]:
    path = root / "transforms.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}; a scene is a folder with spike_data/*.dat, sharp_data/*.png and"
            " transforms.json of nerfstudio (ns-process-data)"
        ) from error
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("frames"), list) or not facts["frames"]:
        raise DataError(f"{path} lists no frames")
    missing = [name for name in _INTRINSICS if not isinstance(facts.get(name), int | float)]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}: one camera for all frames is expected")
    bent = [f"{name} = {facts[name]:g}" for name in _DISTORTION if abs(float(facts.get(name, 0.0))) > BENT]
    if bent:
        warnings.warn(
            f"{path} says that the lens distorts ({', '.join(bent)}); it is taken for a pinhole, as in the"
            " authors' code: undistort streams and images if it matters",
            stacklevel=4,
        )
    if not all(isinstance(frame, dict) and "file_path" in frame for frame in facts["frames"]):
        raise DataError(f"{path} has a frame without file_path")
    return facts


def _poses(frames: Sequence[Mapping[str, Any]], names: Sequence[str]) -> npt.NDArray[np.float64]:
    poses = []
    for frame, name in zip(frames, names, strict=True):
        try:
            pose = np.array(frame["transform_matrix"], dtype=np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the frame {name} has no transform_matrix of 4 x 4 numbers") from error
        if pose.shape != (4, 4):
            raise DataError(f"transform_matrix of {name} has the shape {pose.shape}, not 4 x 4")
        poses.append(pose)
    check_poses(torch.from_numpy(np.stack(poses)), names)  # before they are centred: NaN would spread
    return np.stack(poses)


def _points(root: Path, facts: Mapping[str, Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    listed = [str(facts["ply_file_path"])] if facts.get("ply_file_path") else []
    found = next((name for name in (*listed, *POINTS) if (root / name).is_file()), None)
    if found is None:
        raise DataError(f"{root} has no sparse points; looked for {', '.join((*listed, *POINTS))}")
    points, colors = read_points(root / found)
    if found.endswith(".ply"):
        return points, colors  # nerfstudio has brought them into the coordinates of the poses
    applied = np.array(facts.get("applied_transform", [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]]), float)
    return points @ applied[:3, :3].T + applied[:3, 3], colors


def _matched(folder: Path, suffix: str, names: Sequence[str]) -> list[Path]:
    """A file for each view: of its name; or the n-th for ``frame_n``; or as many files, in their order."""
    files = sorted(folder.glob(f"*{suffix}")) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder} has no {suffix} files")
    own = {file.stem: file for file in files}
    if all(name in own for name in names):
        return [own[name] for name in names]
    numbers = [re.fullmatch(r"frame_(\d+)", name) for name in names]
    if all(numbers):  # ns-process-data renames images, and leaves out those that COLMAP could not place
        places = [int(number.group(1)) - 1 for number in numbers if number]
        if min(places) >= 0 and max(places) < len(files):
            return [files[place] for place in places]
    if len(files) != len(names):
        raise DataError(
            f"{folder} has {len(files)} {suffix} files for {len(names)} frames of transforms.json, and their"
            f" names differ: {files[0].stem}, {names[0]}"
        )
    return files
