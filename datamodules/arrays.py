"""Data sets of classes that fit into memory."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from datamodules.classification import ClassificationDataModule
from datamodules.loading.datasets import ArrayDataset, Arrays
from datamodules.loading.splits import stratified_split


class ArrayDataModule(ClassificationDataModule):
    """Base of data sets that fit into memory.

    A subclass sets the facts and implements `load_arrays`.

    Args:
        val: ``test`` validates on the test set, as most papers do (then the best epoch must not be
            chosen by it); a fraction holds out that share of every class of the training set,
            always the same samples.
        kwargs: see `ClassificationDataModule`.
    """

    def __init__(self, *, val: Literal["test"] | float = "test", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if val != "test" and not 0.0 < float(val) < 1.0:
            raise ValueError(f"val must be 'test' or a fraction between 0 and 1, got {val!r}")
        self.val = val

    def load_arrays(self) -> tuple[Arrays, Arrays]:
        """Return the training and the test set; called once per process."""
        raise NotImplementedError

    @override
    def setup(self, stage: str | None = None) -> None:
        """Load the data, once; `stage` ("predict" needs none) is Lightning's."""
        if self.train_set is not None or stage == "predict":
            return
        train, test = self.load_arrays()
        kept: npt.NDArray[np.int64] | None = None
        augmented, plain = self.train_transform, self.eval_transform
        self.test_set = ArrayDataset(test, plain, self.seed)
        self.val_set = self.test_set
        if self.val != "test":
            kept, held = stratified_split(np.asarray(train.labels), float(self.val))
            self.val_set = ArrayDataset(train, plain, self.seed, held)
        self.train_set = ArrayDataset(train, augmented, self.seed, kept)
