"""Several handwritten digits on one canvas, and which of the ten are there.

Axes: N samples, H W pixels, K classes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from datamodules.images.digits import DigitsDataModule
from datamodules.loading.datasets import Arrays
from datamodules.loading.splits import stratified_split
from datamodules.made_up.base import MadeUpDataModule

SCALE, DIGIT, SIDE = 2, 16, 40  # the digits of 8 x 8 are shown twice as large
PLACES = 2  # a side: one digit at most in each quarter
HELD_OUT = 0.1  # of the training digits, for validation


class DigitCanvasDataModule(MadeUpDataModule):
    """Multi-label classification: one to four of scikit-learn's digits on a canvas of 40 x 40 pixels.

    Digits of the test set are on no canvas of the training or the validation set, and likewise for these two.

    Batches are (x, y): x ``[B, 1, 40, 40]``, y float32 ``[B, 10]``, 1 where a digit is there.

    Args:
        train_samples: size of the training set.
        kwargs: see `MadeUpDataModule`.
    """

    title = "digits of scikit-learn on a canvas"
    licence = DigitsDataModule.licence
    task: ClassVar[str] = "multi-label"
    num_classes, native_size = 10, (SIDE, SIDE)
    class_names = DigitsDataModule.class_names

    def __init__(self, *, train_samples: int = 4000, **kwargs: Any) -> None:
        super().__init__(train_samples=train_samples, **kwargs)
        self.set_statistics((0.138,), (0.296,))

    @override
    def draw(self, part: str, count: int, random: np.random.Generator) -> Arrays:
        train, test = DigitsDataModule().load_arrays()
        kept, held = stratified_split(train.labels, HELD_OUT)
        digits, labels = {
            "train": (train.images[kept], train.labels[kept]),
            "val": (train.images[held], train.labels[held]),
            "test": (test.images, test.labels),
        }[part]
        large = digits[:, 0].repeat(SCALE, axis=1).repeat(SCALE, axis=2)
        images = np.zeros((count, SIDE, SIDE), np.uint8)
        found = np.zeros((count, self.num_classes), np.float32)
        room = SIDE // PLACES - DIGIT
        for image, there in zip(images, found, strict=True):
            places = random.permutation(PLACES**2)[: random.integers(1, PLACES**2 + 1)]
            for place in places:
                chosen = int(random.integers(len(large)))
                top, left = np.array(divmod(place, PLACES)) * (SIDE // PLACES) + random.integers(
                    0, room + 1, 2
                )
                image[top : top + DIGIT, left : left + DIGIT] = large[chosen]
                there[labels[chosen]] = 1.0
        return Arrays(images[:, None], found)
