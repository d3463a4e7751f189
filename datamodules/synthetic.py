"""Made-up data of every batch shape, learnable, for tests and dry runs."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from datamodules.arrays import ArrayDataModule
from datamodules.loading.datasets import ArrayDataset, Arrays
from datamodules.loading.splits import Val
from datamodules.transforms.augmentation import Augmentation
from datamodules.transforms.tensor import TensorPipeline

_COARSE = 4  # class patterns are this many cells wide, so that small crops do not destroy them


class SyntheticDataModule(ArrayDataModule):
    """Noisy copies of one random pattern per class, as images or as events.

    Images: uint8, pattern plus Gaussian noise. Events: counts per step, drawn from a Poisson
    distribution whose rate is the class pattern moving sideways, one class in two to the left.

    Args:
        kind: ``images``, batches ``[B, C, H, W]``; or ``events``, ``[B, T, C, H, W]``.
        num_classes: number of classes.
        in_chans: channels; events usually have 2 polarities.
        time_steps: T of events; images have none.
        train_samples: size of the training set.
        val_samples: size of the validation set.
        test_samples: size of the test set.
        noise: standard deviation of the noise on images, in grey values of 255.
        image_size: height and width, where they differ as [height, width].
        val: kept for the common interface; validation has its own samples here.
        kwargs: see `ClassificationDataModule`.
    """

    title = "made-up patterns"

    def __init__(
        self,
        *,
        kind: Literal["images", "events"] = "images",
        num_classes: int = 10,
        in_chans: int | None = None,
        time_steps: int = 4,
        train_samples: int = 256,
        val_samples: int = 64,
        test_samples: int = 64,
        noise: float = 32.0,
        image_size: int | tuple[int, int] = 32,
        val: Val = "test",
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size=image_size, val=val, **kwargs)
        if kind not in ("images", "events"):
            raise ValueError(f"kind must be 'images' or 'events', got {kind!r}")
        counts = (num_classes, time_steps, train_samples, val_samples, test_samples)
        if min(counts) < 1:
            raise ValueError("class, step and sample counts must all be at least 1")
        if kind == "events" and self.augmentation != Augmentation():
            raise ValueError("augmentations are for kind: images; made-up events have none")
        self.kind = kind
        self.time_steps = time_steps
        self.num_classes = num_classes
        self.in_chans = in_chans or (2 if kind == "events" else 3)
        self.class_names = tuple(f"class {k}" for k in range(num_classes))
        self.samples = {"train": train_samples, "val": val_samples, "test": test_samples}
        self.noise = noise
        self.split_names["val"] = "validation"
        self.set_statistics([0.5] * self.in_chans, [0.25] * self.in_chans)

    @property
    @override
    def native_size(self) -> tuple[int, int]:
        return self.image_size or (32, 32)

    @override
    def _tensor_pipeline(self, augmentation: Augmentation | None) -> TensorPipeline:
        if self.kind == "events":
            return TensorPipeline(events=True)
        return super()._tensor_pipeline(augmentation)

    def _patterns(self, random: np.random.Generator) -> npt.NDArray[np.float64]:
        """Return one pattern per class in 0..1, ``[K, C, H, W]``."""
        height, width = self.native_size
        cells = random.random((self.num_classes, self.in_chans, _COARSE, _COARSE))
        rows = np.arange(height) * _COARSE // height
        columns = np.arange(width) * _COARSE // width
        patterns: npt.NDArray[np.float64] = cells[:, :, rows][..., columns]
        return patterns

    def _draw(self, patterns: npt.NDArray[np.float64], count: int, random: np.random.Generator) -> Arrays:
        labels = np.arange(count, dtype=np.int64) % self.num_classes
        random.shuffle(labels)
        if self.kind == "images":
            shape = (count, *patterns.shape[1:])
            images = 40 + 175 * patterns[labels] + self.noise * random.standard_normal(shape)
            return Arrays(images.clip(0, 255).astype(np.uint8), labels)
        width = patterns.shape[-1]
        steps = []
        for t in range(self.time_steps):
            shift = t * max(1, width // 16)
            moved = np.roll(patterns, shift, axis=-1)
            moved[1::2] = np.roll(patterns[1::2], -shift, axis=-1)
            steps.append(random.poisson(moved[labels] ** 2))
        return Arrays(np.stack(steps, axis=1).clip(0, 255).astype(np.uint8), labels)

    @override
    def setup(self, stage: str | None = None) -> None:
        """Draw the three sets on the first call, each from a stream of its own."""
        if self.train_set is not None:
            return
        if stage != "predict":
            plain = self.eval_transform
            self.train_set = ArrayDataset(self._arrays("train"), self.train_transform, self.seed)
            self.val_set = ArrayDataset(self._arrays("val"), plain, self.seed)
            self.test_set = ArrayDataset(self._arrays("test"), plain, self.seed)

    def _arrays(self, name: str) -> Arrays:
        # the patterns are the data set's, so they do not change with the run's seed
        patterns = self._patterns(np.random.default_rng(0))
        stream = {"train": 1, "val": 2, "test": 3}[name]
        return self._draw(patterns, self.samples[name], np.random.default_rng(stream))

    @override
    def load_arrays(self) -> tuple[Arrays, Arrays]:
        """Return the training and the test set."""
        return self._arrays("train"), self._arrays("test")
