"""What all data modules share: loaders, transforms, facts about the data."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from datamodules.loading.data import (
    ArrayDataset,
    Arrays,
    BatchDataset,
    DataError,
    ImageDataset,
    stratified_split,
)
from datamodules.loading.loader import EpochLoader, as_is
from datamodules.loading.sampler import EvalSampler, TrainSampler
from datamodules.transforms.pipelines import Augmentation, Interpolation, TensorPipeline

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
Pipeline = Any  # TensorPipeline or ImagePipeline: both have steps() and a readable repr


class BaseDataModule(pl.LightningDataModule):
    """Data for one task: loaders, transforms, and the facts that a model needs.

    Batches are (x, y): x float32 ``[B, C, H, W]``, or ``[B, T, C, H, W]`` for events; y int64
    ``[B]``. The order of the training samples depends on (seed, epoch), each augmentation on
    (seed, epoch, sample): neither the number of workers nor a resume changes them. The split among
    processes and the continuation in the middle of an epoch need nothing from the user.

    A subclass sets `num_classes`, `in_chans`, `input_size`, `class_names`, `mean` and `std` in its
    constructor or as properties (a model may be built from them before `setup`), and fills
    `train_set`, `val_set` and `test_set` in `setup`.

    Args:
        batch_size: training samples per process and step.
        eval_batch_size: the same for validation, test and prediction; `batch_size` if missing.
        num_workers: processes that prepare batches. Missing: none for data in memory without a
            policy, else one less than the processor's cores, at least 1 and at most 8.
        seed: of order and augmentation; missing: the one of ``seed_everything``, else 0. Splits do
            not depend on it.
        drop_last: leave out the incomplete last training batch. A set smaller than one batch is
            kept whole.
        pin_memory: page-locked batches; missing: only if there is an accelerator.
        image_size: resize images to this side; missing: their own size.
        mean: channel means in 0..1 for normalising; missing: those of the data set.
        std: channel standard deviations; missing: those of the data set.
        crop_padding: see `Augmentation`, as for the following ones.
        flip: probability of a horizontal flip in training.
        auto_augment: policy of training images.
        cutout: side of the erased square in training.
        random_erasing: probability of random erasing in training.
        erasing_mode: filling of erased rectangles.
        interpolation: of resizing.
        predict_dir: what to predict: an image, a folder (searched with its subfolders), or a list
            of images. Batches are then (x, paths).
    """

    title: str = ""  # of the data set, for cards; its identifier on the Hub; its licence
    hub_id: str | None = None
    licence: str | None = None
    num_classes: int
    in_chans: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    in_memory = True  # decides the default number of workers

    def __init__(
        self,
        *,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        num_workers: int | None = None,
        seed: int | None = None,
        drop_last: bool = True,
        pin_memory: bool | None = None,
        image_size: int | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        crop_padding: int = 0,
        flip: float = 0.0,
        auto_augment: str | None = None,
        cutout: int = 0,
        random_erasing: float = 0.0,
        erasing_mode: Literal["pixel", "rand", "const"] = "pixel",
        interpolation: Interpolation = "bicubic",
        predict_dir: str | list[str] | None = None,
    ) -> None:
        super().__init__()
        positive = {"batch_size": batch_size, "eval_batch_size": eval_batch_size}
        for name, value in (positive | {"image_size": image_size}).items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"num_workers must be 0 or more, got {num_workers}")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
        self.drop_last = drop_last
        self.pin_memory = pin_memory
        self.image_size = image_size
        self.interpolation: Interpolation = interpolation
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
        self.train_set: BatchDataset | None = None
        self.val_set: BatchDataset | None = None
        self.test_set: BatchDataset | None = None
        self._resumed: dict[str, int] | None = None

    # -- facts ---------------------------------------------------------------------------------

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

    @property
    def native_size(self) -> tuple[int, int]:
        """Height and width of the data as stored."""
        raise NotImplementedError

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(C, H, W) of one image, or of one step of events."""
        side = self.image_size
        height, width = self.native_size if side is None else (side, side)
        return self.in_chans, height, width

    def _tensor_pipeline(self, augmentation: Augmentation | None) -> TensorPipeline:
        return TensorPipeline(
            size=None if self.image_size is None else (self.image_size, self.image_size),
            mean=self.mean,
            std=self.std,
            augmentation=augmentation,
            interpolation=self.interpolation,
        )

    @property
    def train_transform(self) -> Pipeline:
        """The training transform; ``print`` shows its steps."""
        return self._tensor_pipeline(self.augmentation)

    @property
    def eval_transform(self) -> Pipeline:
        """The transform of validation, test and prediction."""
        return self._tensor_pipeline(None)

    def facts(self) -> dict[str, Any]:
        """What somebody who uses a network must know about its training data, as plain values."""
        return {
            "name": self.title or type(self).__name__.removesuffix("DataModule"),
            "hub_id": self.hub_id,
            "licence": self.licence,
            "class_names": list(self.class_names),
            "input_size": list(self.input_size),
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "crop_pct": 1.0,
        }

    def describe(self) -> str:
        """Return the facts and transforms as text, one line each."""
        sets = {"train": self.train_set, "val": self.val_set, "test": self.test_set}
        sizes = [f"{name} {len(data):,}" for name, data in sets.items() if data is not None]
        names = ", ".join(self.class_names[:10]) + (", ..." if self.num_classes > 10 else "")
        lines = {
            "data": type(self).__name__,
            "classes": f"{self.num_classes} ({names})",
            "input": "x".join(str(n) for n in self.input_size),
            "samples": ", ".join(sizes) or "not loaded yet",
            "training": repr(self.train_transform),
            "evaluation": repr(self.eval_transform),
            "seed": str(self.seed),
        }
        return "\n".join(f"{key:<11}{value}" for key, value in lines.items())

    # -- loaders -------------------------------------------------------------------------------

    def _processes(self) -> tuple[int, int]:
        """Return (rank, number of processes)."""
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def _loader_options(self, in_memory: bool) -> dict[str, Any]:
        workers = self.num_workers
        if workers is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
            workers = 0 if in_memory else min(8, max(1, cores - 1))
        pin = torch.accelerator.is_available() if self.pin_memory is None else self.pin_memory
        return {
            "num_workers": workers,
            "pin_memory": pin,
            "persistent_workers": workers > 0,
            "collate_fn": as_is,
            # without an own generator every pass would draw a number from the global one
            "generator": torch.Generator().manual_seed(self.seed),
        }

    def _loaded(self, name: str) -> BatchDataset:
        data: BatchDataset | None = getattr(self, name)
        if data is None:
            raise DataError(f"{type(self).__name__}.{name} is not there yet: call setup() first")
        if len(data) == 0:
            raise DataError(f"{type(self).__name__}.{name} is empty")
        return data

    def train_dataloader(self) -> EpochLoader:
        """Return the training loader: shuffled by (seed, epoch), resumable, shared by processes."""
        data = self._loaded("train_set")
        rank, world = self._processes()
        # dropping the only batch would leave nothing to train on
        drop_last = self.drop_last and len(data) >= self.batch_size * world
        sampler = TrainSampler(len(data), self.seed, rank, world, drop_last)
        self._compare_with_checkpoint(len(sampler), world)
        return EpochLoader(
            data,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            position=self._finished_batches,
            **self._loader_options(self.in_memory and self.augmentation.auto_augment is None),
        )

    def _eval_dataloader(self, name: str) -> DataLoader[Any]:
        data = self._loaded(name)
        size = self.eval_batch_size or self.batch_size
        return DataLoader(
            data,
            batch_size=size,
            sampler=EvalSampler(len(data), size, *self._processes()),
            **self._loader_options(self.in_memory),
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation loader."""
        return self._eval_dataloader("val_set")

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test loader."""
        return self._eval_dataloader("test_set")

    def calibration_dataloader(self, samples: int = 0, batch_size: int | None = None) -> DataLoader[Any]:
        """Return training images as evaluation sees them, in one fixed random order.

        Every process gets all of them, so that all of them calibrate alike.

        Args:
            samples: how many; 0 is all of the training set.
            batch_size: that of evaluation if missing.
        """
        if samples < 0:
            raise ValueError(f"samples must be 0 (all) or more, got {samples}")
        data = self._loaded("train_set").with_transform(self.eval_transform)
        order = TrainSampler(len(data), self.seed).order(epoch=0)
        size = batch_size or self.eval_batch_size or self.batch_size
        options = self._loader_options(self.in_memory)
        return DataLoader(data, batch_size=size, sampler=order[: samples or None], **options)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return batches (x, paths) of the images under `predict_dir`."""
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
        from datamodules.loading.images import FitImage

        return FitImage(self.input_size[1:], self.mean, self.std, self.interpolation)

    # -- continuing ----------------------------------------------------------------------------

    def _finished_batches(self, loader: EpochLoader) -> int | None:
        """Return how many batches of this epoch Lightning's training loop has behind it."""
        trainer = self.trainer
        if trainer is None or not trainer.training or trainer.train_dataloader is not loader:
            return None
        return int(trainer.fit_loop.epoch_loop.batch_progress.current.ready)

    def state_dict(self) -> dict[str, Any]:
        """Return what decides the order; Lightning stores it in checkpoints."""
        return {"seed": self.seed, "batch_size": self.batch_size, "processes": self._processes()[1]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember how the checkpoint's run was set up, to compare in `train_dataloader`."""
        self._resumed = dict(state_dict)

    def _compare_with_checkpoint(self, share: int, world: int) -> None:
        trainer, stored = self.trainer, self._resumed
        if stored is None or trainer is None or trainer.state.fn != TrainerFn.FITTING:
            return
        now = {"seed": self.seed, "batch_size": self.batch_size, "processes": world}
        changed = [f"{k} was {stored.get(k)}, is {v}" for k, v in now.items() if stored.get(k) != v]
        if changed and trainer.fit_loop.epoch_loop.batch_progress.current.ready % math.ceil(
            share / self.batch_size
        ):
            warnings.warn(
                f"continuing in the middle of an epoch with another order ({'; '.join(changed)}):"
                " some samples of this epoch will be seen twice, others not at all",
                stacklevel=2,
            )


class ArrayDataModule(BaseDataModule):
    """Base of data sets that fit into memory.

    A subclass sets the facts and implements `load_arrays`; the rest follows.

    Args:
        val: ``test`` validates on the test set, as most papers do (then the best epoch must not be
            chosen by it); a fraction holds out that share of every class of the training set,
            always the same samples.
        kwargs: see `BaseDataModule`.
    """

    def __init__(self, *, val: Literal["test"] | float = "test", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if val != "test" and not 0.0 < float(val) < 1.0:
            raise ValueError(f"val must be 'test' or a fraction between 0 and 1, got {val!r}")
        self.val = val

    def load_arrays(self) -> tuple[Arrays, Arrays]:
        """Return the training and the test set; called once per process."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Load the data, once; `stage` ("predict" needs none) is Lightning's."""
        if self.train_set is not None or stage == "predict":
            return
        train, test = self.load_arrays()
        kept: np.ndarray[Any, np.dtype[np.int64]] | None = None
        augmented, plain = self.train_transform, self.eval_transform
        self.test_set = ArrayDataset(test, plain, self.seed)
        self.val_set = self.test_set
        if self.val != "test":
            kept, held = stratified_split(np.asarray(train.labels), float(self.val))
            self.val_set = ArrayDataset(train, plain, self.seed, held)
        self.train_set = ArrayDataset(train, augmented, self.seed, kept)


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
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGES and p.is_file())
    if not found:
        raise DataError(f"no images ({', '.join(IMAGES)}) in {path}")
    return found
