"""Data sets that hand out whole batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.loading.decode import open_image
from datamodules.loading.errors import DataError
from datamodules.loading.random import Keys, sample_keys

Key = int | tuple[int, int]
Transform = Callable[[Tensor, Keys | None], Tensor]


class Arrays(NamedTuple):
    """Images ``[N, C, H, W]`` or events ``[N, T, C, H, W]``, and labels ``[N]`` or targets ``[N, ...]``.

    Images are uint8, or what `as_bytes` makes uint8 of; counts of events are unsigned integers. Labels are
    class numbers; other targets are floats, or have axes behind N.
    """

    images: npt.NDArray[Any]
    labels: npt.NDArray[Any]


def split_keys(keys: Sequence[Key]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the indices and the epochs of sampler keys; a bare index belongs to epoch 0."""
    pairs = [key if isinstance(key, tuple) else (0, int(key)) for key in keys]
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return table[:, 1], table[:, 0]


def keys_of(seed: int, keys: Sequence[Key]) -> tuple[npt.NDArray[np.int64], Keys]:
    """Return the indices ``[N]`` and the random keys ``[N]`` of sampler keys."""
    indices, epochs = split_keys(keys)
    random = np.empty(len(indices), dtype=np.uint64)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        random[chosen] = sample_keys(seed, int(epoch), indices[chosen])
    return indices, random


class BatchDataset(Dataset[Any]):
    """A set whose ``__getitems__`` returns one finished batch; items are (image, label)."""

    seed: int = 0
    transform: Any

    def with_transform(self, transform: Any) -> Self:
        """Return the same samples, seen through another transform."""
        other = copy.copy(self)
        other.transform = transform
        return other

    def __getitems__(self, keys: Sequence[Key]) -> tuple[Any, Any]:
        raise NotImplementedError

    def __getitem__(self, key: Key) -> tuple[Any, Any]:
        images, labels = self.__getitems__([key])
        return images[0], labels[0]

    def __len__(self) -> int:
        raise NotImplementedError


class ArrayDataset(BatchDataset):
    """Images in memory (or memory-mapped), transformed as whole batches.

    Args:
        arrays: images and labels.
        transform: maps images ``[N, C, H, W]`` and random keys to float32 ``[N, C, H', W']``.
        seed: seed of the augmentation.
        rows: positions within `arrays` that belong to this set; all by default.
    """

    def __init__(
        self,
        arrays: Arrays,
        transform: Transform,
        seed: int = 0,
        rows: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.images = arrays.images
        labels = torch.as_tensor(np.asarray(arrays.labels))
        self.labels = labels if labels.dim() > 1 or labels.is_floating_point() else labels.long()
        self.transform = transform
        self.seed = seed
        self.rows = np.arange(len(self.labels)) if rows is None else rows

    @property
    def targets(self) -> Tensor:
        """Labels of this set, int64 ``[N]``, or other targets ``[N, ...]``."""
        return self.labels[torch.from_numpy(self.rows)]

    def __getitems__(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        indices, random = keys_of(self.seed, keys)
        rows = self.rows[indices]
        images = torch.from_numpy(np.ascontiguousarray(self.images[rows]))
        return self.transform(images, random), self.labels[torch.from_numpy(rows)]

    def __len__(self) -> int:
        return len(self.rows)


class ImageDataset(BatchDataset):
    """Image files, decoded when asked for.

    Args:
        paths: the files.
        labels: class numbers, or ``None`` to hand out paths instead of labels (prediction). There an image
            that cannot be read stops nothing: it is black, and the error stands in the place of its path.
        transform: maps one decoded image and its random key to float32 ``[C, H, W]``.
        in_chans: 1 for grey, 3 for RGB.
        seed: seed of the augmentation.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: npt.NDArray[np.int64] | None,
        transform: Callable[[Image.Image, int | None], Tensor],
        in_chans: int = 3,
        seed: int = 0,
    ) -> None:
        self.paths = [str(path) for path in paths]
        self.labels = None if labels is None else torch.as_tensor(labels, dtype=torch.int64)
        self.transform = transform
        self.in_chans = in_chans
        self.seed = seed

    @property
    def targets(self) -> Tensor:
        """Labels of this set, int64 ``[N]``."""
        if self.labels is None:
            raise DataError("images given for prediction have no labels")
        return self.labels

    def __getitems__(self, keys: Sequence[Key]) -> tuple[Tensor, Any]:
        indices, random = keys_of(self.seed, keys)
        if self.labels is None:
            return self._to_predict([self.paths[i] for i in indices], random)
        images = [self._image(self.paths[i], int(key)) for i, key in zip(indices, random, strict=True)]
        return torch.stack(images), self.labels[torch.from_numpy(indices)]

    def _image(self, path: str, key: int) -> Tensor:
        image: Tensor = self.transform(open_image(path, self.in_chans), key)
        return image

    def _to_predict(self, paths: Sequence[str], random: Keys) -> tuple[Tensor, list[str | DataError]]:
        """Images and their paths; one that cannot be read is black, and its path the error."""
        images: list[Tensor | None] = []
        told: list[str | DataError] = []
        for path, key in zip(paths, random, strict=True):
            try:
                images.append(self._image(path, int(key)))
                told.append(path)
            except DataError as error:
                images.append(None)
                told.append(error)
        blank = next((image for image in images if image is not None), None)
        if blank is None:  # the shape is known to the transform alone
            blank = self.transform(Image.new("L" if self.in_chans == 1 else "RGB", (64, 64)), int(random[0]))
        blank = torch.zeros_like(blank)
        return torch.stack([blank if image is None else image for image in images]), told

    def __len__(self) -> int:
        return len(self.paths)
