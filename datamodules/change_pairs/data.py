"""Data modules of image pairs with a change map between them.

Axes: N samples, H W pixels. Batches are dictionaries: ``before`` and ``after`` ``[N, 3, H, W]`` in [-1, 1],
``change`` ``[N, 1, H, W]`` of -1 and 1, ``name`` N names; ``known`` says whether ``after`` is known.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from typing_extensions import override

from datamodules.base import BaseDataModule
from datamodules.change_pairs.augment import augmented, centred
from datamodules.change_pairs.cities import Pairs, make_cities
from datamodules.change_pairs.folder import PairFiles, check_sizes, list_pairs, read_pair
from datamodules.loading.datasets import BatchDataset, Key, keys_of
from datamodules.loading.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class _PairSet(BatchDataset):
    """Samples as ``[7, H, W]``: before, map, after."""

    transform = None

    def sample(self, index: int, key: int) -> Tensor:
        """The sample; what is random about it depends on ``key``."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """What the sample is called."""
        raise NotImplementedError

    known = True

    @override
    def __getitems__(self, keys: Sequence[Key]) -> Any:
        indices, random = keys_of(self.seed, keys)
        pairs = [(int(i), int(key)) for i, key in zip(indices, random, strict=True)]
        images = torch.stack([self.sample(i, key) for i, key in pairs])
        return {
            "before": images[:, :3],
            "change": images[:, 3:4],
            "after": images[:, 4:],
            "name": [self.name(i) for i, _ in pairs],
            "known": self.known,
        }


class ArrayPairs(_PairSet):
    """Samples in memory.

    Args:
        pairs: their images.
        prefix: of their names.
    """

    def __init__(self, pairs: Pairs, prefix: str) -> None:
        self.images = torch.from_numpy(np.concatenate(pairs, axis=1))
        self.prefix = prefix

    @override
    def sample(self, index: int, key: int) -> Tensor:
        return self.images[index]

    @override
    def name(self, index: int) -> str:
        return f"{self.prefix}_{index:05d}"

    @override
    def __len__(self) -> int:
        return len(self.images)


class FilePairs(_PairSet):
    """Samples in files, decoded when asked for.

    Args:
        files: of each sample.
        size: pixels a side of the crop.
        augment: whether they are scaled, cropped and turned at random; otherwise the middle is taken.
        seed: of the augmentation.
    """

    def __init__(self, files: Sequence[PairFiles], size: int, augment: bool, seed: int) -> None:
        self.files, self.size, self.augment, self.seed = list(files), size, augment, seed
        self.known = all(one.after is not None for one in self.files)

    @override
    def sample(self, index: int, key: int) -> Tensor:
        images = read_pair(self.files[index])
        if self.augment:
            return augmented(images, self.size, key)
        return centred(images, self.size)

    @override
    def name(self, index: int) -> str:
        return self.files[index].before.stem

    @override
    def __len__(self) -> int:
        return len(self.files)


class PairsDataModule(BaseDataModule):
    """What data modules of pairs share: predicting on the test set unless a folder is named."""

    image_size: int

    @override
    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the test samples in their order."""
        self.setup("predict")
        return self._eval_dataloader("test_set")

    @override
    def described(self) -> dict[str, str]:
        return {"images": f"3 x {self.image_size} x {self.image_size}, with a change map"}


class SyntheticCitiesDataModule(PairsDataModule):
    """Made-up cities in memory, see `make_cities`; nothing to download.

    Args:
        train_samples: of the training set.
        test_samples: of the validation set and of the test set.
        image_size: H and W.
        cities_seed: of all samples; ``seed`` is that of the order.
        batch_size: samples in a step.
        kwargs: see `BaseDataModule`.

    Raises:
        ValueError: a size is out of range.
    """

    title = "synthetic cities"

    def __init__(
        self,
        *,
        train_samples: int = 2048,
        test_samples: int = 128,
        image_size: int = 16,
        cities_seed: int = 0,
        batch_size: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        for name, value, least in (
            ("train_samples", train_samples, 1),
            ("test_samples", test_samples, 1),
            ("image_size", image_size, 8),
            ("cities_seed", cities_seed, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.sizes = (train_samples, test_samples, test_samples)
        self.image_size, self.cities_seed = image_size, cities_seed

    @override
    def setup(self, stage: str | None = None) -> None:
        """Draw the samples, once; each of the three sets is of a seed of its own."""
        if self.train_set is not None:
            return
        self.train_set, self.val_set, self.test_set = (
            ArrayPairs(make_cities(count, 3 * self.cities_seed + part, self.image_size), name)
            for part, (name, count) in enumerate(zip(("train", "val", "test"), self.sizes, strict=True))
        )


class ChangePairsDataModule(PairsDataModule):
    """Pairs in ``ROOT/{train,val,test}/{A,B,label}/NAME`` with equal names.

    LEVIR-CD (1024 x 1024 pixels; 445, 64 and 128 pairs) and SYSU-CD (256 x 256; 12,000, 4,000 and 4,000) have
    this layout once unpacked. Nothing is downloaded; their pages state on what terms they may be used.

    Args:
        root: the folder; for ``predict`` it may hold ``A`` and ``label`` itself, with or without ``B``.
        image_size: pixels a side of crops: 512 for LEVIR-CD and 256 for SYSU-CD, as published.
        augment: the published augmentation of training samples.
        batch_size: samples in a step.
        kwargs: see `BaseDataModule`.

    Raises:
        ValueError: the size is out of range.
    """

    in_memory = False

    def __init__(
        self, *, root: str, image_size: int = 256, augment: bool = True, batch_size: int = 4, **kwargs: Any
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        if image_size < 8:
            raise ValueError(f"image_size must be at least 8, got {image_size}")
        self.root, self.image_size, self.augment = Path(root).expanduser(), image_size, augment
        self.title = self.root.name

    @override
    def prepare_data(self) -> None:
        """Look whether the folder is there, before anything else is done."""
        if not self.root.is_dir():
            raise DataError(f"there is no folder {self.root}; pairs lie in ROOT/train/A, B, label and so on")

    @override
    def setup(self, stage: str | None = None) -> None:
        """List the files of what the stage needs.

        Raises:
            DataError: names or sizes do not fit, or an image is smaller than the crop.
        """
        self.prepare_data()
        if stage == "predict" and (self.root / "A").is_dir():
            self.test_set = self._files(self.root, augment=False, after=False)
            return
        roles = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}
        for role in roles.get(stage or "", ("train", "val", "test")):
            if getattr(self, f"{role}_set") is None:
                files = self._files(self.root / role, augment=self.augment and role == "train")
                setattr(self, f"{role}_set", files)

    def _files(self, folder: Path, *, augment: bool, after: bool = True) -> FilePairs:
        files = list_pairs(folder, after=after)
        check_sizes(files, self.image_size, folder.name)
        return FilePairs(files, self.image_size, augment, self.seed)
