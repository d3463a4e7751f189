"""CIFAR-10 and CIFAR-100: 50,000 and 10,000 colour images, 32x32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from datamodules.arrays import ArrayDataModule
from datamodules.loading.cache import cache_folder, decoded
from datamodules.loading.datasets import Arrays
from datamodules.loading.errors import DataError
from datamodules.loading.folder import class_folders, list_images
from datamodules.loading.splits import HOLD_OUT, Val

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR100_CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
    "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
    "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
    "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
    "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
    "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
    "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle",
    "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip


class _CIFARDataModule(ArrayDataModule):
    """What the two have in common; `CIFAR10DataModule` describes the arguments."""

    archive: str  # what torchvision downloads
    unpacked: str
    statistics: tuple[tuple[float, ...], tuple[float, ...]]  # mean, standard deviation
    in_chans, native_size = 3, (32, 32)

    def __init__(
        self,
        root: str = "data",
        *,
        folder: str | None = None,
        val: Val = HOLD_OUT,
        download: bool = True,
        crop_padding: int = 4,
        flip: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(val=val, crop_padding=crop_padding, flip=flip, **kwargs)
        self.root = Path(root).expanduser()
        self.folder = None if folder is None else Path(folder).expanduser()
        self.download = download
        self.set_statistics(*self.statistics)

    @override
    def facts(self) -> dict[str, Any]:
        found = super().facts()  # a copy as images is named as one: its accuracies differ a little
        copy = {"name": f"{self.title}, copy as images", "hub_id": None}  # nobody compared it with the Hub's
        return found if self.folder is None else {**found, **copy}

    def _source(self) -> Any:
        """Return torchvision's class, imported only here: it takes a second."""
        raise NotImplementedError

    def _missing(self, reason: str) -> str:
        return (
            f"{self._source().__name__} is missing ({reason}). Put {self.archive} into {self.root},"
            f" or unpack it to {self.root / self.unpacked}; or point folder to a copy as images,"
            " train/CLASS/ and test/CLASS/"
        )

    @override
    def prepare_data(self) -> None:
        """Download or unpack the archive, or decode the folder, if need be."""
        if self.folder is not None:
            self._folder_arrays("train")
            self._folder_arrays("test")
            return
        try:
            self._source()(str(self.root), download=False)
            return
        except (OSError, RuntimeError):
            reason = "downloading is switched off"
        if self.download or (self.root / self.archive).is_file():
            try:
                self._source()(str(self.root), download=True)
                return
            except (OSError, RuntimeError, EOFError) as error:
                reason = f"downloading failed: {error}"
        raise DataError(self._missing(reason))

    def _folder_arrays(self, split: str) -> Arrays:
        assert self.folder is not None
        place = self.folder / split
        classes = class_folders(place)
        if sorted(self.class_names) != classes:
            odd = sorted(set(classes) ^ set(self.class_names))
            raise DataError(f"{place} does not hold the classes of this set; differing: {odd[:5]}")
        listing = list_images(place, self.class_names)
        images = decoded(listing, (32, 32), 3, cache_folder(self.folder, None))
        return Arrays(images, listing.labels)

    def _source_arrays(self, train: bool) -> Arrays:
        try:
            data = self._source()(str(self.root), train=train, download=False)
        except (OSError, RuntimeError) as error:
            raise DataError(self._missing(str(error))) from error
        images: npt.NDArray[np.uint8] = np.ascontiguousarray(data.data.transpose(0, 3, 1, 2))
        return Arrays(images, np.array(data.targets, dtype=np.int64))

    @override
    def load_arrays(self) -> tuple[Arrays, Arrays]:
        """Return the training and the test set, uint8 ``[N, 3, 32, 32]``."""
        if self.folder is not None:
            return self._folder_arrays("train"), self._folder_arrays("test")
        return self._source_arrays(train=True), self._source_arrays(train=False)


class CIFAR10DataModule(_CIFARDataModule):
    """CIFAR-10 from its pickles, read by torchvision, or from a copy as images.

    Args:
        root: folder of data sets; the pickles lie in ``root/cifar-10-batches-py``.
        folder: a copy as images, ``train/CLASS/*`` and ``test/CLASS/*``, instead; decoded once.
            Re-compressed copies give slightly other accuracies: say so next to the number.
        val: see `ArrayDataModule`.
        download: allow `prepare_data` to download.
        crop_padding: padding of the random crop.
        flip: probability of a horizontal flip.
        kwargs: see `ClassificationDataModule`.
    """

    title, hub_id = "CIFAR-10", "uoft-cs/cifar10"
    archive, unpacked = "cifar-10-python.tar.gz", "cifar-10-batches-py"
    num_classes, class_names = 10, CIFAR10_CLASSES
    # the figures that SpikingResformer and most CIFAR recipes use
    statistics = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)

    @override
    def _source(self) -> Any:
        from torchvision.datasets import CIFAR10

        return CIFAR10


class CIFAR100DataModule(_CIFARDataModule):
    """CIFAR-100 with its 100 fine labels.

    Args:
        root: folder of data sets; the pickles lie in ``root/cifar-100-python``.
        folder: a copy as images, see `CIFAR10DataModule`.
        val: see `ArrayDataModule`.
        download: allow `prepare_data` to download.
        crop_padding: padding of the random crop.
        flip: probability of a horizontal flip.
        kwargs: see `ClassificationDataModule`.
    """

    title, hub_id = "CIFAR-100", "uoft-cs/cifar100"
    archive, unpacked = "cifar-100-python.tar.gz", "cifar-100-python"
    num_classes, class_names = 100, CIFAR100_CLASSES
    # 129.3, 124.1, 112.4 and 68.2, 65.4, 70.4 of 255, as in SpikingResformer
    statistics = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)

    @override
    def _source(self) -> Any:
        from torchvision.datasets import CIFAR100

        return CIFAR100
