"""Any event recordings sorted into one folder per class, in any format that has a reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import override

from datamodules.events.base import EventDataModule, Recording
from datamodules.events.readers import SUFFIXES, Events, read_events, sensor_size
from datamodules.loading.errors import DataError
from datamodules.loading.folder import class_folders


class EventFolderDataModule(EventDataModule):
    """Recordings under ``root/train/CLASS/`` and ``root/test/CLASS/``: N-CARS, N-Caltech101, your own.

    Formats: ``.bin`` and ``.bs2`` of N-MNIST, AEDAT 2.0, 3.1 and 4, ``.dat`` and ``.raw`` (EVT 2.0, 2.1, 3.0)
    of Prophesee, HDF5, ``.npz``, ``.npy`` and ``.mat``; some need ``pip install 'fulgurite[events]'``.

    Args:
        root: the folder; its class folders may hold further ones.
        sensor_size: height and width; missing: as the header of the first recording says. Smaller recordings
            lie in the upper left corner.
        time_steps: T.
        kwargs: see `EventDataModule` and `ClassificationDataModule`.

    Raises:
        DataError: no such folder, or nothing tells the size of the sensor.
    """

    title = ""
    suffixes = SUFFIXES
    page = "where they were published"
    layout = "{root}/train/CLASS/ and {root}/test/CLASS/"

    def __init__(
        self,
        root: str,
        *,
        sensor_size: tuple[int, int] | None = None,
        time_steps: int = 10,
        **kwargs: Any,
    ) -> None:
        if sensor_size is not None and min(sensor_size) < 1:
            raise ValueError(f"sensor_size is height and width in pixels, got {list(sensor_size)}")
        super().__init__(root, time_steps=time_steps, **kwargs)
        self.class_names = tuple(class_folders(self._split("train")))
        self.num_classes = len(self.class_names)
        self._size = None if sensor_size is None else (int(sensor_size[0]), int(sensor_size[1]))

    @property
    @override
    def native_size(self) -> tuple[int, int]:
        """Height and width of the sensor."""
        if self._size is None:
            first = next(iter(self._listed("train")), None)
            self._size = None if first is None else sensor_size(first.path)
            if self._size is None:
                raise DataError(
                    f"{first.path if first else self.root} does not say how large the sensor is;"
                    " set sensor_size: [HEIGHT, WIDTH]"
                )
        return self._size

    @override
    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "name": f"event recordings of the folder {self.root.resolve().name}"}

    @override
    def read(self, recording: Recording) -> Events:
        return read_events(recording.path)

    @override
    def recordings(self) -> tuple[list[Recording], list[Recording]]:
        return self._listed("train"), self._listed("test")

    def _split(self, name: str) -> Path:
        for folder in (self.root / name, self.root / name.capitalize()):
            if folder.is_dir():
                return folder
        raise DataError(f"no such folder: {self.root / name}; expected {name}/CLASS/ with recordings inside")

    def _listed(self, name: str) -> list[Recording]:
        folder = self._split(name)
        foreign = sorted(set(class_folders(folder)) - set(self.class_names))
        if foreign:
            raise DataError(f"{folder} has classes that training lacks: {', '.join(foreign[:5])}")
        return [
            Recording(path, label)
            for label, kind in enumerate(self.class_names)
            for path in sorted((folder / kind).rglob("*"))
            if path.suffix.lower() in SUFFIXES and path.is_file()
        ]
