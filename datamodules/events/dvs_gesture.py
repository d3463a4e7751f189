"""DVS128 Gesture (Amir et al., CVPR 2017): 29 people and 11 gestures before an event camera, 128x128."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from typing_extensions import override

from datamodules.events.base import EventDataModule, Recording
from datamodules.events.readers import Events, read_aedat3
from datamodules.loading.errors import DataError

GESTURES = (
    "hand clapping", "right hand wave", "left hand wave", "right arm clockwise",
    "right arm counter clockwise", "left arm clockwise", "left arm counter clockwise", "arm roll",
    "air drums", "air guitar", "other gestures",
)  # fmt: skip


class DVSGestureDataModule(EventDataModule):
    """1,176 training and 288 test gestures of about 6 s, cut out of recordings of whole sessions.

    Args:
        root: the folder ``DvsGesture`` or the one that holds it: sessions ``userNN_LIGHT.aedat``, their
            ``userNN_LIGHT_labels.csv``, ``trials_to_train.txt`` and ``trials_to_test.txt``.
        time_steps: T.
        kwargs: see `EventDataModule` and `ClassificationDataModule`.
    """

    title = "DVS128 Gesture"
    licence = "CC BY 4.0"
    num_classes, native_size = 11, (128, 128)
    class_names = GESTURES
    suffixes = (".aedat",)
    page = "https://research.ibm.com/interactive/dvsgesture/"
    layout = "{root}, with trials_to_train.txt, userNN_LIGHT.aedat and userNN_LIGHT_labels.csv"

    def __init__(self, root: str = "data/dvs_gesture", *, time_steps: int = 16, **kwargs: Any) -> None:
        super().__init__(root, time_steps=time_steps, **kwargs)

    @override
    def read(self, recording: Recording) -> Events:
        return read_aedat3(recording.path, recording.start, recording.stop)

    @override
    def recordings(self) -> tuple[list[Recording], list[Recording]]:
        inner = self.root / "DvsGesture"
        folder = inner if inner.is_dir() else self.root
        return self._listed(folder, "train"), self._listed(folder, "test")

    def _listed(self, folder: Path, split: str) -> list[Recording]:
        table = folder / f"trials_to_{split}.txt"
        if not table.is_file():
            return []
        names = [line.strip() for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [gesture for name in names for gesture in self._gestures(folder / name)]

    def _gestures(self, session: Path) -> list[Recording]:
        labels = session.with_name(f"{session.stem}_labels.csv")
        if not session.is_file() or not labels.is_file():
            raise DataError(f"{session} or {labels.name} beside it is missing")
        found = []
        with labels.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                try:
                    label, start, stop = (int(row[k]) for k in ("class", "startTime_usec", "endTime_usec"))
                except (KeyError, TypeError, ValueError):
                    raise DataError(
                        f"{labels}: expected class,startTime_usec,endTime_usec, got {row}"
                    ) from None
                if not 1 <= label <= len(GESTURES):
                    raise DataError(f"{labels}: classes go from 1 to {len(GESTURES)}, got {label}")
                found.append(Recording(session, label - 1, start, stop))
        return found
