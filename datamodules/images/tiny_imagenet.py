"""Tiny-ImageNet, 200 classes of 64 x 64 images, as its archive unpacks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from typing_extensions import override

from datamodules.images.image_folder import ImageFolderDataModule
from datamodules.loading.errors import DataError
from datamodules.loading.folder import Listing, list_images


class TinyImageNetDataModule(ImageFolderDataModule):
    """Tiny-ImageNet-200 (CS231n): ``train/SYNSET/images/*.JPEG`` and ``val/images/*.JPEG``.

    The labels of the validation images are in ``val/val_annotations.txt``; images that were sorted
    into ``val/SYNSET/`` are read, too. The test images have no labels, so what is reported is measured on
    the validation set, as in all papers, and named so. Training: random resized crop, flip, policy;
    evaluation: as they are.

    Args:
        root: the unpacked folder.
        val: share of the training images that is held out to choose the checkpoint, one in twenty;
            ``val`` trains on all of them and chooses on the validation set, as the papers do.
        image_size: side of the crops.
        crop_pct: part of the short side that evaluation keeps; missing: all.
        flip: probability of a horizontal flip.
        kwargs: see `ImageFolderDataModule`.
    """

    hold_out = 0.05
    title = "Tiny-ImageNet"
    usual_crop_pct = 1.0
    how_to_get = (
        "\nunpack tiny-imagenet-200.zip (cs231n.stanford.edu) so that"
        " {root}/train/SYNSET/images/*.JPEG and {root}/val/val_annotations.txt exist"
    )

    @override
    def is_genuine(self) -> bool:
        return self.num_classes == 200 and all(re.fullmatch(r"n\d{8}", name) for name in self.class_names)

    def __init__(
        self,
        root: str = "data/tiny-imagenet-200",
        *,
        val: Literal["val"] | float | None = None,
        image_size: int | tuple[int, int] = 64,
        crop_pct: float | None = None,
        flip: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            root,
            val=val,
            style="imagenet",
            image_size=image_size,
            crop_pct=crop_pct,
            flip=flip,
            **kwargs,
        )
        self.set_statistics((0.480, 0.448, 0.398), (0.272, 0.266, 0.274))

    @override
    def _find_folders(self) -> dict[str, Path]:
        found = {split: folder for split, folder in super()._find_folders().items() if split != "test"}
        if "train" not in found or not (self.root / "train").is_dir():
            raise DataError(f"{self.root} has no folder 'train', which names the classes")
        return found

    @override
    def _list(self, split: str, folder: Path) -> Listing:
        table = folder / "val_annotations.txt"
        if split != "val" or not table.is_file():
            return list_images(folder, self.class_names)
        labels = {name: label for label, name in enumerate(self.class_names)}
        paths, found = [], []
        for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), 1):
            name, synset = (*line.split("\t"), "", "")[:2]
            if synset not in labels:
                raise DataError(f"{table}, line {number}: {synset!r} is no class of the training set")
            paths.append(folder / "images" / name)
            found.append(labels[synset])
        return Listing(folder, tuple(paths), np.array(found, dtype=np.int64))
