"""Data of K classes: what a classifier must know of it, and the transforms of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from datamodules.base import BaseDataModule
from datamodules.loading.datasets import BatchDataset, ImageDataset
from datamodules.loading.errors import DataError
from datamodules.loading.folder import find_images
from datamodules.transforms.augmentation import Augmentation
from datamodules.transforms.fit import FitImage
from datamodules.transforms.policies import Interpolation
from datamodules.transforms.tensor import TensorPipeline


def as_size(image_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """(height, width) of a side or a pair; None stays.

    >>> as_size(32), as_size([24, 48])
    ((32, 32), (24, 48))

    Raises:
        ValueError: it is neither.
    """
    if image_size is None:
        return None
    pair = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(pair) != 2 or not all(isinstance(n, int) and n >= 1 for n in pair):
        raise ValueError(f"image_size must be a side or [height, width], at least 1 each, got {image_size}")
    return pair[0], pair[1]


class ClassificationDataModule(BaseDataModule):
    """Images or event frames of K classes: transforms, and the facts that a model needs.

    Batches are (x, y): x float32 ``[B, C, H, W]``, or ``[B, T, C, H, W]`` for events; y int64
    ``[B]``.

    A subclass sets `num_classes`, `in_chans`, `native_size` and `class_names` as class attributes,
    in its constructor or as properties (a model may be built from them before `setup`), calls
    `set_statistics`, and fills `train_set`, `val_set` and `test_set` in `setup`.

    Args:
        image_size: resize images to this side, or to [height, width]; missing: their own size.
        mean: channel means in 0..1 for normalising; missing: those of the data set.
        std: channel standard deviations; missing: those of the data set.
        crop_padding: see `Augmentation`, as for the following ones.
        flip: probability of a horizontal flip in training.
        auto_augment: policy of training images.
        cutout: side of the erased square in training.
        random_erasing: probability of random erasing in training.
        erasing_mode: filling of erased rectangles.
        interpolation: of resizing; missing: bicubic.
        predict_dir: what to predict: an image, a folder (searched with its subfolders), or a list
            of images. Batches are then (x, paths).
        balanced: draw training samples so that every class is seen equally often, with replacement; an
            epoch is as long as without.
        kwargs: see `BaseDataModule`.

    Raises:
        ValueError: a side below 1, or a wrong augmentation.
    """

    linked_facts: ClassVar[tuple[str, ...]] = ("num_classes", "in_chans", "input_size")
    task: ClassVar[str] = "classification"  # what networks are trained for on these data
    num_classes: int
    in_chans: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        crop_padding: int = 0,
        flip: float = 0.0,
        auto_augment: str | None = None,
        cutout: int = 0,
        random_erasing: float = 0.0,
        erasing_mode: Literal["pixel", "rand", "const"] = "pixel",
        interpolation: Interpolation | None = None,
        predict_dir: str | list[str] | None = None,
        balanced: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image_size = as_size(image_size)
        self.balanced = balanced
        self.interpolation: Interpolation = interpolation or "bicubic"
        self.chosen = {  # by the user; the rest may follow trained weights, see `follow`
            name
            for name, value in (
                ("input_size", image_size),
                ("mean", mean),
                ("std", std),
                ("interpolation", interpolation),
            )
            if value is not None
        }
        if self.chosen & {"mean", "std"}:  # one without the other would be neither's normalisation
            self.chosen |= {"mean", "std"}
        self.augmentation = Augmentation(
            crop_padding=crop_padding,
            flip=flip,
            auto_augment=auto_augment,
            cutout=cutout,
            random_erasing=random_erasing,
            erasing_mode=erasing_mode,
        )
        self.predict_dir = predict_dir
        self._mean, self._std = mean, std

    def set_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set `mean` and `std`: the user's where given, else these of the data set."""
        self.mean = tuple(mean if self._mean is None else self._mean)
        self.std = tuple(std if self._std is None else self._std)
        chans = self.in_chans
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != chans:
                raise ValueError(f"{name} has {len(values)} values for {chans} channels")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {list(self.std)}")

    def follow(self, name: str, value: Any) -> bool:
        """Take over how trained weights want their images; before `setup`, which builds the transforms.

        Args:
            name: ``mean``, ``std``, ``interpolation``, or ``input_size`` as (C, H, W).
            value: what the weights were trained with.

        Returns:
            False where the user chose otherwise, or the value cannot be had here.
        """
        if name in self.chosen:
            return False
        if name in ("mean", "std") and len(value) == self.in_chans:
            setattr(self, name, tuple(value))
        elif name == "interpolation" and value in get_args(Interpolation):
            self.interpolation = value
        elif name == "input_size" and value[0] == self.in_chans:
            self.image_size = (int(value[1]), int(value[2]))
        else:
            return False
        return True

    @property
    def native_size(self) -> tuple[int, int]:
        """Height and width of the data as stored."""
        raise NotImplementedError

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(C, H, W) of one image, or of one step of events."""
        height, width = self.image_size or self.native_size
        return self.in_chans, height, width

    def _tensor_pipeline(self, augmentation: Augmentation | None) -> TensorPipeline:
        return TensorPipeline(
            size=self.image_size,
            mean=self.mean,
            std=self.std,
            augmentation=augmentation,
            interpolation=self.interpolation,
        )

    @property
    @override
    def train_transform(self) -> Any:
        return self._tensor_pipeline(self.augmentation)

    @property
    @override
    def eval_transform(self) -> Any:
        return self._tensor_pipeline(None)

    @override
    def facts(self) -> dict[str, Any]:
        return {
            **super().facts(),
            "class_names": list(self.class_names),
            "input_size": list(self.input_size),
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "crop_pct": 1.0,
        }

    @override
    def described(self) -> dict[str, str]:
        names = ", ".join(self.class_names[:10]) + (", ..." if self.num_classes > 10 else "")
        return {
            "classes": f"{self.num_classes} ({names})",
            "input": "x".join(str(n) for n in self.input_size),
        }

    @property
    @override
    def light_training(self) -> bool:
        return self.in_memory and self.augmentation.auto_augment is None

    @override
    def sample_weights(self, data: BatchDataset) -> Tensor | None:
        """One over the number of samples of its class, if `balanced`."""
        if not self.balanced:
            return None
        targets = getattr(data, "targets", None)
        if targets is None:
            raise DataError(
                "balanced: true counts the labels of the training samples, which these data do not tell"
            )
        targets = torch.as_tensor(targets)
        return 1.0 / torch.bincount(targets).double()[targets]

    @override
    def predict_dataloader(self) -> DataLoader[Any]:
        """Return batches (x, paths) of the images under `predict_dir`; see `ImageDataset`."""
        if self.predict_dir is None:
            raise DataError("nothing to predict: set predict_dir to a folder or a list of images")
        if self.in_chans not in (1, 3):
            raise DataError(f"images have 1 or 3 channels, but this model gets {self.in_chans}")
        data = ImageDataset(find_images(self.predict_dir), None, self._predict_transform(), self.in_chans)
        # Lightning shares prediction among processes itself, without repeating samples
        return DataLoader(
            data,
            batch_size=self.eval_batch_size or self.batch_size,
            **self._loader_options(in_memory=False),
        )

    def _predict_transform(self) -> Any:
        """Return a map of one image to float32 ``[C, H, W]`` of `input_size`."""
        return FitImage(self.input_size[1:], self.mean, self.std, self.interpolation)
