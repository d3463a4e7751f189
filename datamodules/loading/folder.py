"""Folders of images: all of them, or sorted by class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datamodules.loading.errors import DataError

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Listing:
    """Images of one split.

    Attributes:
        folder: the split's folder.
        paths: all images, class by class, sorted by name.
        labels: class numbers ``[N]``.
    """

    folder: Path
    paths: tuple[Path, ...]
    labels: npt.NDArray[np.int64]


def class_folders(folder: Path) -> list[str]:
    """Return the sorted names of the class folders in `folder`; at least one."""
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}")
    entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    names = sorted(entry.name for entry in entries if entry.is_dir())
    if not names:
        loose = sum(entry.name.lower().endswith(IMAGE_SUFFIXES) for entry in entries)
        found = f"{loose} images but no folders" if loose else "nothing"
        raise DataError(f"{folder} holds {found}; expected one folder per class with its images inside")
    return names


def list_images(folder: Path, classes: Sequence[str]) -> Listing:
    """List the images of a split.

    Args:
        folder: holds one folder per class.
        classes: all class names; the position is the label.
    """
    foreign = sorted(set(class_folders(folder)) - set(classes))
    if foreign:
        raise DataError(f"{folder} has classes that training lacks: {', '.join(foreign[:5])}")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        place = folder / name
        found = sorted(p for p in _files(place) if p.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise DataError(f"no images ({', '.join(IMAGE_SUFFIXES)}) in {place}")
        paths += found
        labels += [label] * len(found)
    return Listing(folder, tuple(paths), np.array(labels, dtype=np.int64))


def _files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise DataError(f"no such class folder: {folder}")
    for base, _, names in os.walk(folder):
        yield from (Path(base) / name for name in names if not name.startswith("."))


def find_images(source: str | Sequence[str]) -> list[Path]:
    """Return the images that `source` names, in a fixed order.

    Args:
        source: an image, a folder (searched with its subfolders, sorted), or a list of these.
    """
    if not isinstance(source, str):
        return [path for entry in source for path in find_images(entry)]
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"no such file or folder: {path}")
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not found:
        raise DataError(f"no images ({', '.join(IMAGE_SUFFIXES)}) in {path}")
    return found
