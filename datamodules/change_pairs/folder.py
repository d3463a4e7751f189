"""Pairs in folders: ``A/NAME`` before, ``label/NAME`` the change map, ``B/NAME`` after."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from datamodules.change_pairs.augment import to_range
from datamodules.loading.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
MANY = 2000  # pairs whose files take seconds to look at


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


def check_sizes(pairs: Sequence[PairFiles], size: int, label: str) -> None:
    """Refuse pairs that no crop fits into, by what the heads of their files say; a bar shows long lists.

    Args:
        pairs: of a set.
        size: pixels a side of the crop.
        label: of the set, for the bar.

    Raises:
        DataError: an image is smaller than the crop, the sizes of a pair differ, or a file is no image.
    """
    for files in track(pairs, f"sizes of {label}", transient=True, disable=len(pairs) < MANY):
        paths = [p for p in (files.before, files.change, files.after) if p is not None]
        sizes = [_size(path) for path in paths]
        if len(set(sizes)) > 1:
            told = [f"{p.parent.name}/{p.name} {h} x {w}" for p, (h, w) in zip(paths, sizes, strict=True)]
            raise DataError(f"the images of a pair must be of one size, got {', '.join(told)}")
        height, width = sizes[0]
        if min(height, width) < size:
            raise DataError(
                f"{files.before} has {height} x {width} pixels, too few for a crop of {size} x {size}; set"
                " data.init_args.image_size, and take a model of that size"
            )


def read_pair(files: PairFiles) -> Tensor:
    """``[7, H, W]`` in [-1, 1]: before, map, after; zeros where nobody knows the image after.

    Raises:
        DataError: a file is no image, or the map has other values than two.
    """
    before, change = _opened(files.before, "RGB"), _opened(files.change, "L")
    values = np.unique(change)
    if len(values) > 2 or (len(values) and set(values.tolist()) - {0, 1, 255}):
        shown = ", ".join(map(str, values[:6].tolist()))
        raise DataError(f"{files.change} is no change map: expected two values, 0 and 255, got {shown}")
    known = to_range(_opened(files.after, "RGB")) if files.after is not None else None
    after = torch.zeros(3, *before.shape[:2]) if known is None else known
    marked = torch.from_numpy(np.where(change > 0, 1.0, -1.0).astype(np.float32)).permute(2, 0, 1)
    return torch.cat([to_range(before), marked, after])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error


def _size(path: Path) -> tuple[int, int]:
    """Height and width, without decoding."""
    with _readable(path), Image.open(path) as image:
        return image.height, image.width


def _opened(path: Path, mode: str) -> np.ndarray:
    with _readable(path), Image.open(path) as image:
        array = np.asarray(image.convert(mode))
    return array if array.ndim == 3 else array[:, :, None]
