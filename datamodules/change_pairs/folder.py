"""Pairs in folders: ``A/NAME`` before, ``label/NAME`` the change map, ``B/NAME`` after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from datamodules.change_pairs.augment import to_range
from datamodules.loading.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True, kw_only=True)
class PairFiles:
    """The files of one sample; ``after`` may be missing where one is to be predicted."""

    before: Path
    change: Path
    after: Path | None


def list_pairs(root: Path, *, after: bool = True) -> list[PairFiles]:
    """The samples of a folder, sorted by name.

    Args:
        root: has ``A``, ``label`` and ``B``.
        after: whether ``B`` must be there; else it is used if it is.

    Raises:
        DataError: a folder is missing or empty, or the names differ.
    """
    parts = ["A", "label", "B"] if after or (root / "B").is_dir() else ["A", "label"]
    names = {part: _names(root / part) for part in parts}
    for part in parts[1:]:
        if odd := sorted(names["A"] ^ names[part]):
            here, there = ("A", part) if odd[0] in names["A"] else (part, "A")
            raise DataError(f"{root}: {here} has {odd[0]} and {there} has not ({len(odd)} names differ)")
    return [
        PairFiles(
            before=root / "A" / name,
            change=root / "label" / name,
            after=root / "B" / name if "B" in parts else None,
        )
        for name in sorted(names["A"])
    ]


def _names(folder: Path) -> set[str]:
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; pairs lie in A (before), label (map) and B (after)")
    found = {path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES}
    if not found:
        raise DataError(f"{folder} holds no images ({', '.join(SUFFIXES)})")
    return found


def read_pair(files: PairFiles) -> Tensor:
    """``[7, H, W]`` in [-1, 1]: before, map, after; zeros where nobody knows the image after.

    Raises:
        DataError: a file is no image, the sizes differ, or the map has other values than two.
    """
    before, change = _opened(files.before, "RGB"), _opened(files.change, "L")
    images = {files.before: before, files.change: change}
    if files.after is not None:
        images[files.after] = _opened(files.after, "RGB")
    sizes = {image.shape[:2] for image in images.values()}
    if len(sizes) > 1:
        told = ", ".join(f"{p.parent.name}/{p.name} {i.shape[0]} x {i.shape[1]}" for p, i in images.items())
        raise DataError(f"the images of a pair must be of one size, got {told}")
    values = np.unique(change)
    if len(values) > 2 or (len(values) and set(values.tolist()) - {0, 1, 255}):
        shown = ", ".join(map(str, values[:6].tolist()))
        raise DataError(f"{files.change} is no change map: expected two values, 0 and 255, got {shown}")
    after = to_range(images[files.after]) if files.after is not None else torch.zeros(3, *before.shape[:2])
    marked = torch.from_numpy(np.where(change > 0, 1.0, -1.0).astype(np.float32)).permute(2, 0, 1)
    return torch.cat([to_range(before), marked, after])


def _opened(path: Path, mode: str) -> np.ndarray:
    try:
        with Image.open(path) as image:
            array = np.asarray(image.convert(mode))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error
    return array if array.ndim == 3 else array[:, :, None]
