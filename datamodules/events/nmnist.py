"""N-MNIST (10.3389/fnins.2015.00437): MNIST seen by a moving event camera, 34x34."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import override

from datamodules.events.base import EventDataModule, Recording
from datamodules.events.readers import Events, read_nmnist
from datamodules.loading.errors import DataError


class NMNISTDataModule(EventDataModule):
    """60,000 and 10,000 recordings of about 300 ms, or any part of them.

    Args:
        root: the folder with ``Train/DIGIT/*.bin`` and ``Test/DIGIT/*.bin`` as published; or a flat folder
            of ``ID.bs2`` or ``ID.bin`` with the lists ``train*.txt`` and ``test*.txt``, two columns, file
            and digit.
        time_steps: T.
        kwargs: see `EventDataModule` and `ClassificationDataModule`.
    """

    title = "N-MNIST"
    licence = "CC BY-SA 4.0"
    num_classes, native_size = 10, (34, 34)
    class_names = tuple("0123456789")
    suffixes = (".bin", ".bs2")
    page = "https://www.garrickorchard.com/datasets/n-mnist"
    layout = "{root}/Train/DIGIT/*.bin and {root}/Test/DIGIT/*.bin"

    def __init__(self, root: str = "data/nmnist", *, time_steps: int = 10, **kwargs: Any) -> None:
        super().__init__(root, time_steps=time_steps, **kwargs)

    @override
    def read(self, recording: Recording) -> Events:
        return read_nmnist(recording.path)

    @override
    def recordings(self) -> tuple[list[Recording], list[Recording]]:
        return self._split("Train"), self._split("Test")

    def _split(self, name: str) -> list[Recording]:
        if (self.root / name).is_dir():
            return [
                Recording(path, label)
                for label in range(10)
                for path in sorted((self.root / name / str(label)).glob("*.bin"))
            ]
        lists = sorted(self.root.glob(f"{name.lower()}*.txt"))
        return self._listed(lists[0]) if lists else []

    def _listed(self, table: Path) -> list[Recording]:
        found = []
        for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or words[1] not in self.class_names:
                raise DataError(f"{table}, line {number}: expected a file and a digit, got {line!r}")
            paths = [self.root / f"{words[0]}{suffix}" for suffix in (".bs2", ".bin")]
            path = next((p for p in paths if p.is_file()), None)
            if path is None:
                raise DataError(f"{table}, line {number}: no recording {paths[0]}")
            found.append(Recording(path, int(words[1])))
        return found
