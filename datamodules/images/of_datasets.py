"""Any data set of torch or torchvision, and those of Hugging Face, as data of classes."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import override

from datamodules.classification import ClassificationDataModule
from datamodules.images.image_folder import IMAGENET_MEAN, IMAGENET_STD
from datamodules.loading.datasets import BatchDataset, Key, keys_of
from datamodules.loading.decode import as_bytes
from datamodules.loading.errors import DataError
from datamodules.loading.splits import HELD_OUT, HOLD_OUT, SPLIT_SEED, Val, check_val, stratified_split
from datamodules.transforms.fit import fitted
from datamodules.transforms.policies import Interpolation

TEST_FRACTION = 0.2
SAVED = ("state.json", "dataset_dict.json")  # what `save_to_disk` of one split, or of several, leaves


def _pair(items: Any, row: int) -> Sequence[Any]:
    """An item, which is (image, label), and maybe more that is not used.

    Raises:
        DataError: it is something else.
    """
    item = items[row]
    if not isinstance(item, tuple | list) or len(item) < 2:
        kind = f"a dict of {', '.join(map(str, item))}" if isinstance(item, dict) else type(item).__name__
        raise DataError(
            f"item {row} of {type(items).__name__} must be (image, class number), got {kind}; let its"
            " __getitem__ return such a pair"
        )
    return item


class ItemDataset(BatchDataset):
    """Items (image, label) of a data set of others, handed out as batches.

    Args:
        items: the data set; an image is a PIL image, an array ``[H, W]`` or ``[H, W, C]``, or a tensor
            ``[C, H, W]``.
        rows: positions within `items` that belong to this set.
        labels: of all items ``[N]``.
        transform: maps uint8 ``[B, C, H, W]`` and random keys to float32 ``[B, C, H, W]``.
        in_chans: 1 for grey, 3 for RGB; tensors must have so many.
        size: (height, width) that each image is resized to; None keeps it.
        interpolation: of resizing.
        seed: of the augmentation.
    """

    def __init__(
        self,
        items: Any,
        rows: npt.NDArray[np.int64],
        labels: npt.NDArray[np.int64],
        transform: Any,
        *,
        in_chans: int,
        size: tuple[int, int] | None,
        interpolation: Interpolation,
        seed: int,
    ) -> None:
        self.items, self.rows, self.labels = items, rows, labels
        self.transform, self.seed = transform, seed
        self.in_chans, self.size, self.interpolation = in_chans, size, interpolation

    @property
    def targets(self) -> Tensor:
        """Labels of this set, int64 ``[N]``."""
        return torch.from_numpy(self.labels[self.rows])

    @override
    def __getitems__(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        indices, random = keys_of(self.seed, keys)
        rows = self.rows[indices]
        images = [self._image(_pair(self.items, int(row))[0], int(row)) for row in rows]
        shapes = {tuple(image.shape) for image in images}
        if len(shapes) > 1:
            raise DataError(f"images have several sizes ({sorted(shapes)[:3]}, ...); set image_size")
        return self.transform(torch.stack(images), random), torch.from_numpy(self.labels[rows])

    @override
    def __len__(self) -> int:
        return len(self.rows)

    def _image(self, image: Any, row: int) -> Tensor:
        """uint8 ``[C, H, W]``."""
        if isinstance(image, Tensor):
            if image.dim() != 3 or len(image) != self.in_chans:
                raise DataError(
                    f"item {row} is a tensor {tuple(image.shape)}, expected [{self.in_chans}, H, W]; set"
                    " in_chans to its channels"
                )
            return as_bytes(image)
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        return fitted(image, self.in_chans, self.size, self.interpolation)


class DatasetDataModule(ClassificationDataModule):
    """Any ``torch.utils.data.Dataset`` of (image, class number), such as those of torchvision.

    In YAML a data set is ``{class_path: torchvision.datasets.SVHN, init_args: {root: data, split: train}}``,
    or one of your own, ``{class_path: my_data.Birds}``. Where the classes are not told by attributes
    ``classes``, ``targets`` or ``labels``, all items are read once for their labels.

    Args:
        train: training images.
        test: test images; missing: a fifth of every class of `train`, always the same.
        num_classes: K, where the data do not tell.
        in_chans: 3, or 1 to read everything as grey; of tensors their channels.
        val: share of every class of the training images that chooses the checkpoint, or ``test``.
        class_names: of the classes, where the data do not tell.
        kwargs: see `ClassificationDataModule`; `image_size` is needed where sizes differ.

    Raises:
        DataError: the data set tells no length, or fewer classes than its labels need.
    """

    in_memory = False

    def __init__(
        self,
        train: Dataset,  # type: ignore[type-arg]  # the parser knows no items
        *,
        test: Dataset | None = None,  # type: ignore[type-arg]
        num_classes: int | None = None,
        in_chans: int = 3,
        val: Val = HOLD_OUT,
        class_names: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, data in (("train", train), ("test", test)):
            if data is not None and not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
                raise DataError(f"{name} must have a length and items, and a {type(data).__name__} has not")
        self.items: dict[str, Any] = {"train": train, "test": train if test is None else test}
        self.shared = test is None
        self.val = check_val(val)
        self.in_chans = in_chans
        self.title = type(train).__name__
        names = class_names or self._told_names(train)
        self.labels = {"train": self._labels(train)}
        self.num_classes = num_classes or len(names or ()) or int(self.labels["train"].max()) + 1
        self.class_names = tuple(names or (f"class {k}" for k in range(self.num_classes)))
        most = int(self.labels["train"].max())
        if most >= self.num_classes or len(self.class_names) != self.num_classes:
            raise DataError(
                f"the labels go up to {most} and there are {len(self.class_names)} names, but num_classes is"
                f" {self.num_classes}"
            )
        usual = {1: ((0.449,), (0.226,)), 3: (IMAGENET_MEAN, IMAGENET_STD)}
        self.set_statistics(*usual.get(in_chans, ([0.5] * in_chans, [0.25] * in_chans)))

    def _told_names(self, data: Any) -> list[str] | None:
        names = getattr(data, "classes", None)
        return [str(name) for name in names] if isinstance(names, list | tuple) else None

    def _labels(self, data: Any) -> npt.NDArray[np.int64]:
        told = next(
            (v for n in ("targets", "labels", "_labels") if (v := getattr(data, n, None)) is not None), None
        )
        if told is None or len(told) != len(data):
            told = [_pair(data, k)[1] for k in range(len(data))]
        if not len(told):
            raise DataError(f"the data set {type(data).__name__} holds nothing")
        labels = np.asarray(told)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(f"labels must be one class number an item, got {labels.dtype} {labels.shape}")
        return labels.astype(np.int64)

    @property
    @override
    def native_size(self) -> tuple[int, int]:
        """Height and width of the first image."""
        image = _pair(self.items["train"], 0)[0]
        if isinstance(image, Image.Image):
            return image.height, image.width
        height, width = image.shape[-2:] if isinstance(image, Tensor) else image.shape[:2]
        return int(height), int(width)

    @override
    def setup(self, stage: str | None = None) -> None:
        """Split the samples, once; ``predict`` needs none of them."""
        if stage == "predict" or self.train_set is not None:
            return
        rows = np.arange(len(self.labels["train"]))
        if self.shared:
            self.labels["test"] = self.labels["train"]
            kept, held = stratified_split(self.labels["train"], TEST_FRACTION, SPLIT_SEED + 1)
            rows, test_rows = rows[kept], rows[held]
            self.split_names["test"] = f"{HELD_OUT} for the test"
        else:
            self.labels["test"] = self._labels(self.items["test"])
            test_rows = np.arange(len(self.labels["test"]))
        self.test_set = self._set("test", test_rows, self.eval_transform)
        if self.val == "test":
            self.val_set, self.split_names["val"] = self.test_set, self.split_names["test"]
        else:
            kept, held = stratified_split(self.labels["train"][rows], float(self.val))
            self.val_set = self._set("train", rows[held], self.eval_transform)
            self.split_names["val"], rows = HELD_OUT, rows[kept]
        self.train_set = self._set("train", rows, self.train_transform)

    def _set(self, part: str, rows: npt.NDArray[np.int64], transform: Any) -> ItemDataset:
        return ItemDataset(
            self.items[part],
            rows,
            self.labels[part],
            transform,
            in_chans=self.in_chans,
            size=self.image_size,
            interpolation=self.interpolation,
            seed=self.seed,
        )


class _Columns(Dataset[Any]):
    """Two columns of a data set of Hugging Face as (image, label)."""

    def __init__(self, table: Any, image: str, label: str) -> None:
        for name in (image, label):
            if name not in table.column_names:
                raise DataError(f"there is no column {name!r}; there are {', '.join(table.column_names)}")
        self.table, self.image, self.label = table, image, label
        self.targets = table[label][:]
        self.classes = getattr(table.features[label], "names", None)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        item: Mapping[str, Any] = self.table[row]
        return item[self.image], int(item[self.label])

    def __len__(self) -> int:
        return len(self.table)


class HuggingFaceDataModule(DatasetDataModule):
    """Images of the package ``datasets`` (``pip install 'fulgurite[hf]'``): from the Hub, or a folder.

    Args:
        path: ``OWNER/NAME`` on the Hub, a folder that ``save_to_disk`` wrote, or one of files that
            ``datasets.load_dataset`` reads: Parquet, images by class, ...
        image: column of the images.
        label: column of the classes.
        train: its split to train on.
        test: its split to test on; null holds out a fifth of every class.
        config: name of one of the configurations of the data set.
        revision: of the data set on the Hub: a commit or a tag.
        kwargs: see `DatasetDataModule`.

    Raises:
        DataError: the package is missing, or there is no such split or column.
    """

    def __init__(
        self,
        path: str,
        *,
        image: str = "image",
        label: str = "label",
        train: str = "train",
        test: str | None = "test",
        config: str | None = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        if importlib.util.find_spec("datasets") is None:
            raise DataError("data of Hugging Face need the package datasets: pip install 'fulgurite[hf]'")
        import datasets

        if any((Path(path) / name).is_file() for name in SAVED):
            found: Any = datasets.load_from_disk(path)
            found = found if isinstance(found, dict) else {"train": found}
        else:
            # as a whole path: a folder called "parquet" or "csv" is else taken for the reader of that name
            place = str(Path(path).resolve()) if Path(path).is_dir() else path
            found = datasets.load_dataset(place, config, revision=revision)
        for split in (train, test):
            if split is not None and split not in found:
                raise DataError(f"{path} has no split {split!r}; it has {', '.join(found)}")
        parts = {name: _Columns(found[name], image, label) for name in {train, test} - {None}}
        super().__init__(parts[train], test=None if test is None else parts[test], **kwargs)
        self.title = Path(path).name if Path(path).is_dir() else path
        self.hub_id = None if Path(path).is_dir() else path
