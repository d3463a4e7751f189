"""Data sets of classes that fit into memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from datamodules.classification import ClassificationDataModule
from datamodules.loading.datasets import ArrayDataset, Arrays
from datamodules.loading.errors import DataError
from datamodules.loading.splits import HELD_OUT, HOLD_OUT, Val, check_val, stratified_split


class ArrayDataModule(ClassificationDataModule):
    """Base of data sets that fit into memory.

    A subclass sets the facts and implements `load_arrays`.

    Args:
        val: share of every class of the training set that is held out to choose the checkpoint, always
            the same samples: a tenth. ``test`` trains on all of them and chooses on the test set, as most
            papers do; cards say so.
        kwargs: see `ClassificationDataModule`.
    """

    def __init__(self, *, val: Val = HOLD_OUT, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.val = check_val(val)
        self.split_names["val"] = "test" if val == "test" else HELD_OUT

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
            if not len(held):
                raise DataError("no class has two training samples, so none can be held out; use val: test")
            self.val_set = ArrayDataset(train, plain, self.seed, held)
        self.train_set = ArrayDataset(train, augmented, self.seed, kept)
