"""Any images sorted into one folder per class."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from typing_extensions import override

from datamodules.classification import ClassificationDataModule
from datamodules.loading.cache import LazyImages, cache_folder, decoded
from datamodules.loading.datasets import ArrayDataset, Arrays, BatchDataset, ImageDataset
from datamodules.loading.decode import open_image
from datamodules.loading.errors import DataError
from datamodules.loading.folder import Listing, class_folders, list_images
from datamodules.loading.splits import HELD_OUT, HOLD_OUT, SPLIT_SEED, stratified_split
from datamodules.transforms.augmentation import Augmentation
from datamodules.transforms.image import ImagePipeline

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TEST_SEED = SPLIT_SEED + 1  # of images that are held out for the test, where there is no folder for it
SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


class ImageFolderDataModule(ClassificationDataModule):
    """Images under ``root/train/CLASS/``, ``root/val/CLASS/`` and ``root/test/CLASS/``.

    ``valid`` and ``validation`` do for ``val``. What is reported is measured on the test folder, without
    one on the val folder, without either on a tenth of the training images. The checkpoint is chosen on
    others, unless `val` says otherwise. Class folders directly in ``root`` are a training set.

    Args:
        root: the folder.
        val: a fraction holds out that share of every training class to choose the checkpoint, always the
            same images; ``val`` or ``test`` names the folder to choose on. Missing: the val folder beside a
            test folder, else `hold_out`. If it is what is reported, too, cards say so.
        style: ``small``: images of one size, changed as whole batches, with `crop_padding`;
            ``imagenet``: any sizes, random resized crop in training, centre crop in evaluation.
        in_chans: 3, or 1 to read everything as grey.
        cache: ``small`` only: decode once into one file beside ``root`` and map it into memory.
        cache_dir: another place for that file.
        crop_scale: ``imagenet`` only, area of the random crop, (least, most).
        crop_ratio: ``imagenet`` only, aspect ratio of the random crop, (least, most).
        crop_pct: ``imagenet`` only, part of the short side that evaluation keeps; missing: 0.875.
        color_jitter: ``imagenet`` only, strength; has no effect besides `auto_augment`, as in timm.
        image_size: side of the result, or [height, width]; ``imagenet`` needs one, ``small`` keeps the size
            without.
        kwargs: see `ClassificationDataModule`.
    """

    usual_crop_pct = 0.875
    how_to_get = ""  # what to do where the folder is missing, with the place {root}
    hold_out = HOLD_OUT  # share of the training images that choose the checkpoint, where nothing is said

    def __init__(
        self,
        root: str,
        *,
        val: Literal["val", "test"] | float | None = None,
        style: Literal["small", "imagenet"] = "small",
        in_chans: int = 3,
        cache: bool = False,
        cache_dir: str | None = None,
        crop_scale: tuple[float, float] = (0.08, 1.0),
        crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
        crop_pct: float | None = None,
        color_jitter: float = 0.0,
        image_size: int | tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        if style not in ("small", "imagenet"):
            raise ValueError(f"style must be 'small' or 'imagenet', got {style!r}")
        if in_chans not in (1, 3):
            raise ValueError(f"in_chans must be 1 (grey) or 3 (RGB), got {in_chans}")
        if style == "imagenet" and image_size is None:
            raise ValueError("style: imagenet needs an image_size, for example 224")
        if style == "imagenet" and cache:
            raise ValueError("cache: true keeps images of one size; it needs style: small")
        if not (val in ("val", "test", None) or (isinstance(val, float) and 0.0 < val < 1.0)):
            raise ValueError(f"val must be 'val', 'test' or a fraction, got {val!r}")
        super().__init__(image_size=image_size, **kwargs)
        self.root = Path(root).expanduser()
        self.val = val
        self.style = style
        self.in_memory = cache
        self.cache, self.cache_dir = cache, cache_dir
        self.crop_scale, self.crop_ratio = tuple(crop_scale), tuple(crop_ratio)
        self.crop_pct, self.color_jitter = crop_pct or self.usual_crop_pct, color_jitter
        if crop_pct is not None:
            self.chosen.add("crop_pct")
        self.in_chans = in_chans
        try:
            self.folders = self._find_folders()
            self.class_names = tuple(class_folders(next(iter(self.folders.values()))))
        except DataError as error:
            raise DataError(f"{error}{self.how_to_get.format(root=root)}") from None
        self.num_classes = len(self.class_names)
        grey = in_chans == 1
        self.set_statistics((0.449,) if grey else IMAGENET_MEAN, (0.226,) if grey else IMAGENET_STD)
        self._native_size: tuple[int, int] | None = None

    def _find_folders(self) -> dict[str, Path]:
        if not self.root.is_dir():
            raise DataError(f"no such folder: {self.root}; expected train/CLASS/*.jpg inside")
        found = {
            split: self.root / name
            for split, names in SPLITS.items()
            for name in reversed(names)
            if (self.root / name).is_dir()
        }
        return found or {"train": self.root}

    @override
    def follow(self, name: str, value: Any) -> bool:
        if name != "crop_pct" or name in self.chosen or self.style != "imagenet":
            return super().follow(name, value)
        self.crop_pct = float(value)
        return True

    @override
    def facts(self) -> dict[str, Any]:
        found = super().facts()
        crop_pct = self.crop_pct if self.style == "imagenet" else 1.0
        if not (self.title and self.is_genuine()):
            name = f"images of the folder {self.root.resolve().name}"
            found |= {"name": name, "hub_id": None, "licence": None}
        return {**found, "crop_pct": crop_pct}

    def is_genuine(self) -> bool:
        """Whether the folder may be called by the title of the data set, as far as its classes tell."""
        return True

    @property
    @override
    def native_size(self) -> tuple[int, int]:
        """Height and width of the first image; of all of them if the style is ``small``."""
        if self._native_size is None:
            folder = next(iter(self.folders.values()))
            listing = list_images(folder, self.class_names)
            image = open_image(listing.paths[0], self.in_chans)
            self._native_size = image.height, image.width
        return self._native_size

    def _pipeline(self, augmentation: Augmentation | None) -> ImagePipeline:
        return ImagePipeline(
            size=self.input_size[1:],
            mean=self.mean,
            std=self.std,
            augmentation=augmentation,
            scale=cast("tuple[float, float]", self.crop_scale),
            ratio=cast("tuple[float, float]", self.crop_ratio),
            crop_pct=self.crop_pct,
            color_jitter=self.color_jitter,
            interpolation=self.interpolation,
        )

    @property
    @override
    def train_transform(self) -> Any:
        return self._transform(self.augmentation)

    @property
    @override
    def eval_transform(self) -> Any:
        return self._transform(None)

    def _transform(self, augmentation: Augmentation | None) -> Any:
        if self.style == "imagenet":
            return self._pipeline(augmentation)
        return self._tensor_pipeline(augmentation)

    @override
    def _predict_transform(self) -> Any:
        if self.style == "imagenet":
            return self.eval_transform
        return super()._predict_transform()

    def _list(self, split: str, folder: Path) -> Listing:
        return list_images(folder, self.class_names)

    def _images(self, listing: Listing) -> Any:
        if not self.cache:
            return LazyImages(listing.paths, self.native_size, self.in_chans)
        folder = cache_folder(self.root, self.cache_dir)
        return decoded(listing, self.native_size, self.in_chans, folder)

    def _dataset(self, listing: Listing, augmentation: Augmentation | None, rows: Any = None) -> BatchDataset:
        transform = self._transform(augmentation)
        if self.style == "small":
            arrays = Arrays(self._images(listing), listing.labels)
            return ArrayDataset(arrays, transform, self.seed, rows)
        rows = np.arange(len(listing.paths)) if rows is None else rows
        paths = [listing.paths[row] for row in rows]
        return ImageDataset(paths, listing.labels[rows], transform, self.in_chans, self.seed)

    @override
    def prepare_data(self) -> None:
        """Decode the images into the cache, if one is wanted; in one process only."""
        if self.cache:
            for folder in self.folders.values():
                self._images(list_images(folder, self.class_names))

    @override
    def setup(self, stage: str | None = None) -> None:
        """List the images, once; ``predict`` needs none of them."""
        if stage == "predict" or self.test_set is not None or self.train_set is not None:
            return
        listings = {split: self._list(split, folder) for split, folder in self.folders.items()}
        train = listings.pop("train", None)
        rows = np.arange(0 if train is None else len(train.paths))
        reported = next((name for name in ("test", "val") if name in listings), None)
        if reported is not None:
            self._set("test", listings[reported], self._split_name(reported))
        elif train is not None:
            rows, held = self._held_out(train, rows, HOLD_OUT, TEST_SEED)
            self._set("test", train, f"{HELD_OUT} for the test", held)
        choose = self._choosing(listings, train)
        if isinstance(choose, float):
            rows, held = self._held_out(train, rows, choose, SPLIT_SEED)
            self._set("val", cast("Listing", train), HELD_OUT, held)
        elif choose in listings:
            self._set("val", listings[choose], self._split_name(choose))
        else:
            self.val_set, self.split_names["val"] = self.test_set, self.split_names["test"]
        if train is not None:
            self.train_set = self._dataset(train, self.augmentation, rows)

    def _set(self, role: Literal["val", "test"], listing: Listing, name: str, rows: Any = None) -> None:
        setattr(self, f"{role}_set", self._dataset(listing, None, rows))
        self.split_names[role] = name

    def _choosing(self, listings: dict[str, Listing], train: Listing | None) -> str | float:
        """The folder, or the share of the training images, that chooses the checkpoint."""
        if isinstance(self.val, float):
            return self.val
        if self.val is not None:
            if self.val not in (*listings, "test" if not listings else ""):
                raise DataError(
                    f"{self.root} has no folder {self.val!r} to validate on; add one, or set val to a"
                    f" fraction such as {self.hold_out:g}"
                )
            return self.val
        if train is None or set(listings) == {"val", "test"}:
            return "val" if "val" in listings else "test"
        if listings and np.bincount(train.labels).max() < 2:
            warnings.warn(
                f"no class in {train.folder} has two images, so none is held out: the checkpoint is chosen on"
                " the images that are reported",
                stacklevel=2,
            )
            return next(iter(listings))
        return self.hold_out

    def _held_out(self, train: Listing | None, rows: Any, share: float, seed: int) -> tuple[Any, Any]:
        """Of these rows of the training images, those that stay and those that are held out."""
        if train is None:
            raise DataError(
                f"val: {share:g} holds out training images, but {self.root} has no folder 'train'"
            )
        kept, held = stratified_split(train.labels[rows], share, seed)
        if not len(held):
            raise DataError(
                f"no class in {train.folder} has images enough to hold one out; add a folder 'val' and one"
                " named 'test'"
            )
        return rows[kept], rows[held]

    def _split_name(self, split: str) -> str:
        """What the publisher calls a folder; links to the same images are one split."""
        if split == "test" and "val" in self.folders and _same(self.folders["val"], self.folders["test"]):
            split = "val"
        return {"val": "validation"}.get(split, split)


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()
