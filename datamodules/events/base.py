"""What the sets of event recordings share: frames and their copy on disk."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from datamodules.arrays import ArrayDataModule
from datamodules.events.count import Counts
from datamodules.events.frames import SplitBy, to_frames
from datamodules.events.readers import Events, in_order
from datamodules.loading.cache import cache_folder, listed, memory_mapped, short_hash
from datamodules.loading.datasets import Arrays
from datamodules.loading.errors import DataError
from datamodules.loading.loader import as_is
from datamodules.loading.splits import HOLD_OUT, Val
from datamodules.transforms.augmentation import Augmentation
from datamodules.transforms.events import EventPipeline


@dataclass(frozen=True)
class Recording:
    """A file, or a part of it in microseconds, and its class."""

    path: Path
    label: int = -1
    start: int | None = None
    stop: int | None = None


class LazyFrames:
    """Frames ``[N, T, 2, H, W]`` of recordings, counted when asked for."""

    def __init__(self, module: EventDataModule, recordings: Sequence[Recording]) -> None:
        self.module, self.recordings = module, list(recordings)
        self._told = False
        self._lock = threading.Lock()  # of threads that count at the same time
        self.shape: tuple[int, ...] = (module.time_steps, 2, *module.native_size)

    def __len__(self) -> int:
        return len(self.recordings)

    def _first(self) -> bool:
        with self._lock:
            told, self._told = self._told, True
        return not told

    def decode(self, row: int) -> Counts:
        """The frames of one recording, ``[T, 2, H, W]``, see `to_frames`."""
        recording = self.recordings[row]
        try:
            events = self.module.read(recording)
            ordered = in_order(events, recording.path, told=True)
            if ordered is not events and self._first():
                in_order(events, recording.path)  # one warning for a set
            return to_frames(ordered, self.module.time_steps, self.module.native_size, self.module.split_by)
        except DataError as error:
            named = str(error).startswith(str(recording.path))
            raise DataError(str(error) if named else f"{recording.path}: {error}") from error


class RecordingDataset(Dataset[Any]):
    """Recordings to predict: items are (frames ``[T, C, H, W]``, path)."""

    def __init__(self, frames: LazyFrames, transform: EventPipeline) -> None:
        self.frames, self.transform = frames, transform

    def __len__(self) -> int:
        return len(self.frames)

    def __getitems__(self, rows: Sequence[int]) -> tuple[Tensor, list[str]]:
        frames = torch.from_numpy(np.stack([self.frames.decode(row) for row in rows]))
        return self.transform(frames), [str(self.frames.recordings[row].path) for row in rows]


class EventDataModule(ArrayDataModule):
    """Base of the sets of event recordings; batches are ``[B, T, C, H, W]``.

    `prepare_data` counts the events of every recording into frames, once, and keeps them in one file beside
    `root`. Nothing is downloaded, as the publishers hand these sets out by browser only; an error names the
    page and the layout.

    Args:
        root: the set's folder.
        time_steps: T, the frames that a recording becomes.
        split_by: ``count`` or ``time``, see `to_frames`.
        event_augment: see ``one_of_three`` of `EventPipeline`.
        sum_channel: a third channel, the sum of the polarities.
        cache_dir: another place for the frames.
        val: see `ArrayDataModule`.
        kwargs: see `ClassificationDataModule`; of its augmentations ``crop_padding`` and ``flip``.
    """

    suffixes: tuple[str, ...]  # of recordings
    page: str  # where the publisher hands the set out
    layout: str  # what lies where, in words

    def __init__(
        self,
        root: str,
        *,
        time_steps: int,
        split_by: SplitBy = "count",
        event_augment: bool = False,
        sum_channel: bool = False,
        cache_dir: str | None = None,
        val: Val = HOLD_OUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(val=val, **kwargs)
        if time_steps < 1:
            raise ValueError(f"time_steps must be at least 1, got {time_steps}")
        if split_by not in ("count", "time"):
            raise ValueError(f"split_by must be 'count' or 'time', got {split_by!r}")
        a = self.augmentation
        if a != Augmentation(crop_padding=a.crop_padding, flip=a.flip):
            raise ValueError(
                "of the augmentations of images, events take crop_padding and flip; event_augment has more"
            )
        self.root = Path(root).expanduser()
        self.time_steps = time_steps
        self.split_by: SplitBy = split_by
        self.event_augment, self.sum_channel = event_augment, sum_channel
        self.cache_dir = cache_dir
        self.in_chans = 3 if sum_channel else 2
        self.set_statistics([0.0] * self.in_chans, [1.0] * self.in_chans)
        self.chosen |= {"mean", "std"}  # counts are not normalised, whatever weights say

    def recordings(self) -> tuple[list[Recording], list[Recording]]:
        """The training and the test recordings; an empty list if the folder has none."""
        raise NotImplementedError

    def read(self, recording: Recording) -> Events:
        """The events of a recording, in the order of its file.

        Raises:
            DataError: the file is missing, cut off or in another format.
        """
        raise NotImplementedError

    @property
    @override
    def train_transform(self) -> EventPipeline:
        return self._pipeline(self.augmentation)

    @property
    @override
    def eval_transform(self) -> EventPipeline:
        return self._pipeline(None)

    def _pipeline(self, augmentation: Augmentation | None) -> EventPipeline:
        size = self.image_size
        return EventPipeline(size, augmentation, self.event_augment, self.sum_channel)

    @override
    def prepare_data(self) -> None:
        """Count the events into frames; in one process only."""
        self.load_arrays()

    @override
    def load_arrays(self) -> tuple[Arrays, Arrays]:
        """Return the training and the test frames, ``[N, T, 2, H, W]``, mapped into memory."""
        train, test = self.recordings()
        if not train or not test:
            raise DataError(
                f"{self.title} is missing: no recordings in {self.root}. Fetch them from {self.page} with a"
                f" browser and unpack them to {self.layout.format(root=self.root)}"
            )
        folder = cache_folder(self.root, self.cache_dir)
        return self._frames("train", train, folder), self._frames("test", test, folder)

    def frame_settings(self, shape: tuple[int, ...]) -> str:
        """Whatever, beside the recordings, decides their frames: a change makes another file of them."""
        return f"3 {type(self).__name__} {self.split_by} {shape} {self.root.resolve()}"

    def _frames(self, name: str, recordings: list[Recording], folder: Path) -> Arrays:
        lazy = LazyFrames(self, recordings)
        files = (listed(r.path, self.root, f"{r.start} {r.stop} ") for r in recordings)
        key = short_hash(self.frame_settings(lazy.shape) + "".join(files))
        frames = memory_mapped(folder / f"{name}-{key}.npy", lazy)
        return Arrays(frames, np.array([r.label for r in recordings], dtype=np.int64))

    @override
    def predict_dataloader(self) -> DataLoader[Any]:
        """Return batches (frames, paths) of the recordings under `predict_dir`."""
        if self.predict_dir is None:
            raise DataError("nothing to predict: set predict_dir to a recording, a folder, or a list of them")
        sources = [self.predict_dir] if isinstance(self.predict_dir, str) else self.predict_dir
        found: list[Recording] = []
        for source in sources:
            path = Path(source).expanduser()
            files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
            found += [Recording(p) for p in files if p.suffix.lower() in self.suffixes]
        if not found:
            raise DataError(f"no recordings ({', '.join(self.suffixes)}) in {', '.join(sources)}")
        return DataLoader(
            RecordingDataset(LazyFrames(self, found), self.eval_transform),
            batch_size=self.eval_batch_size or self.batch_size,
            collate_fn=as_is,
        )
