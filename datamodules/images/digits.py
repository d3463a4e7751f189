"""scikit-learn's 1,797 handwritten digits, 8x8: real data in the wheel, the fastest set here."""

from __future__ import annotations

from typing import Any

import numpy as np
from typing_extensions import override

from datamodules.arrays import ArrayDataModule
from datamodules.loading.datasets import Arrays
from datamodules.loading.errors import DataError
from datamodules.loading.splits import HOLD_OUT, Val, stratified_split

TEST_FRACTION = 0.2


class DigitsDataModule(ArrayDataModule):
    """Optical digits of the UCI repository as scikit-learn ships them: 8x8, grey values 0..16.

    Split: a fifth of every class, always the same, is the test set (359 of 1,797).

    Args:
        val: see `ArrayDataModule`.
        kwargs: see `ClassificationDataModule`.
    """

    title = "handwritten digits of scikit-learn (1,797, 8x8)"
    licence = "BSD-3-Clause, as scikit-learn ships them"
    num_classes, in_chans, native_size = 10, 1, (8, 8)
    class_names = tuple("0123456789")

    def __init__(self, *, val: Val = HOLD_OUT, **kwargs: Any) -> None:
        super().__init__(val=val, **kwargs)
        self.set_statistics((0.3053,), (0.3760,))

    @override
    def load_arrays(self) -> tuple[Arrays, Arrays]:
        """Return 1,438 training and 359 test digits, uint8 ``[N, 1, 8, 8]``."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError("scikit-learn is missing: pip install 'fulgurite[data]'") from error
        bunch = load_digits()
        images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
        labels = bunch.target.astype(np.int64)
        train, test = stratified_split(labels, TEST_FRACTION)
        return Arrays(images[train], labels[train]), Arrays(images[test], labels[test])
