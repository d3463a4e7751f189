"""CIFAR10-DVS (10.3389/fnins.2017.00309): 10,000 CIFAR-10 images moved before an event camera, 128x128."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from datamodules.events.base import EventDataModule, Recording
from datamodules.events.readers import Events, read_aedat2
from datamodules.images.cifar import CIFAR10_CLASSES

TRAIN_SHARE = 0.9


class CIFAR10DVSDataModule(EventDataModule):
    """1,000 recordings of each of ten classes.

    There is no official split. The first 90 % of each class by file name train and the others test, the
    split of SpikingResformer (2403.14302) and most papers.

    Args:
        root: the folder with ``CLASS/*.aedat``.
        time_steps: T.
        kwargs: see `EventDataModule` and `ClassificationDataModule`.
    """

    title = "CIFAR10-DVS"
    licence = "CC BY 4.0"
    num_classes, native_size = 10, (128, 128)
    class_names = CIFAR10_CLASSES
    suffixes = (".aedat",)
    page = "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671"
    layout = "{root}/CLASS/*.aedat, with the classes of CIFAR-10"

    def __init__(self, root: str = "data/cifar10_dvs", *, time_steps: int = 16, **kwargs: Any) -> None:
        super().__init__(root, time_steps=time_steps, **kwargs)

    @override
    def read(self, recording: Recording) -> Events:
        return read_aedat2(recording.path)

    @override
    def recordings(self) -> tuple[list[Recording], list[Recording]]:
        train: list[Recording] = []
        test: list[Recording] = []
        for label, name in enumerate(self.class_names):
            paths = sorted((self.root / name).glob("*.aedat"))
            first = round(TRAIN_SHARE * len(paths))
            train += [Recording(path, label) for path in paths[:first]]
            test += [Recording(path, label) for path in paths[first:]]
        return train, test
