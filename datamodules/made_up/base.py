"""Images that are drawn when they are needed, the same ones for every run."""

from __future__ import annotations

from typing import Any

import numpy as np
from typing_extensions import override

from datamodules.classification import ClassificationDataModule
from datamodules.loading.datasets import ArrayDataset, Arrays
from datamodules.transforms.augmentation import Augmentation


class MadeUpDataModule(ClassificationDataModule):
    """Base of made-up images with targets of any shape; a subclass sets the facts and implements `draw`.

    Batches are (x, y): x float32 ``[B, 1, H, W]``, y as the subclass says.

    Args:
        train_samples: size of the training set.
        val_samples: size of the validation set.
        test_samples: size of the test set.
        kwargs: see `ClassificationDataModule`; augmentations are refused, since targets do not follow them.

    Raises:
        ValueError: a set is empty, or an augmentation was asked for.
    """

    in_chans = 1
    licence = "made up; free of rights"

    def __init__(
        self, *, train_samples: int = 2000, val_samples: int = 200, test_samples: int = 500, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.sizes = {"train": train_samples, "val": val_samples, "test": test_samples}
        if min(self.sizes.values()) < 1:
            raise ValueError(f"each set needs a sample or more, got {self.sizes}")
        if self.augmentation != Augmentation():
            raise ValueError(f"{type(self).__name__} takes no augmentation: the targets would not follow")

    def draw(self, part: str, count: int, random: np.random.Generator) -> Arrays:
        """The samples of a set.

        Args:
            part: ``train``, ``val`` or ``test``.
            count: N.
            random: what is random about them.
        """
        raise NotImplementedError

    @override
    def setup(self, stage: str | None = None) -> None:
        """Draw the three sets on the first call, each from a stream of its own, whatever the run's seed."""
        if self.train_set is not None or stage == "predict":
            return
        made = {
            part: ArrayDataset(
                self.draw(part, count, np.random.default_rng(number)), self.eval_transform, self.seed
            )
            for number, (part, count) in enumerate(self.sizes.items(), 1)
        }
        self.train_set, self.val_set, self.test_set = made["train"], made["val"], made["test"]
