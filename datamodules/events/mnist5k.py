"""MNIST's digits before a simulated event camera: an event set with no download."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from datamodules.events.base import EventDataModule, Recording
from datamodules.events.count import Counts
from datamodules.events.frames import to_frames
from datamodules.events.readers import SUFFIXES, Events, read_events
from datamodules.events.simulate import brightness_events, film, saccades
from datamodules.images.mnist5k import TEST_FRACTION, MNIST5kDataModule, find_mnist5k, read_mnist5k
from datamodules.loading.cache import cache_folder, memory_mapped, short_hash, user_cache
from datamodules.loading.datasets import Arrays
from datamodules.loading.random import sample_keys
from datamodules.loading.splits import stratified_split

FILM = 61  # frames of the simulated film, one every 5 ms


class SimulatedFrames:
    """Frames ``[N, T, 2, H, W]`` of images that move before a simulated camera, made when asked for."""

    def __init__(self, module: MNIST5kEventsDataModule, images: npt.NDArray[np.uint8], rows: Any) -> None:
        self.module, self.images, self.rows = module, images, rows
        self.shape: tuple[int, ...] = (module.time_steps, 2, *module.native_size)

    def __len__(self) -> int:
        return len(self.rows)

    def decode(self, row: int) -> Counts:
        """The frames of one image, ``[T, 2, H, W]``."""
        number = int(self.rows[row])
        events = self.module.simulated(self.images[number, 0], number)
        return to_frames(events, self.module.time_steps, self.module.native_size, self.module.split_by)


class MNIST5kEventsDataModule(EventDataModule):
    """The 5,000 digits of `MNIST5kDataModule` as events of 300 ms, 34x34 like N-MNIST, from seeded saccades.

    Every digit has its own path, which depends on `saccade_seed` and its number only; the split is that of
    `MNIST5kDataModule`. The frames are made once and kept.

    Args:
        positive_threshold: change of the logarithm of the intensity that is an event towards bright.
        negative_threshold: the same towards dark.
        reach: side of the triangle of saccades in pixels.
        saccade_seed: of the paths.
        time_steps: T.
        split_by: ``count`` or ``time``, see `to_frames`.
        kwargs: see `EventDataModule` and `ClassificationDataModule`.
    """

    title = "MNIST, 5,000 digits as simulated events"
    licence = MNIST5kDataModule.licence
    num_classes, native_size = 10, (34, 34)
    class_names = MNIST5kDataModule.class_names
    suffixes = SUFFIXES
    page = layout = ""

    def __init__(
        self,
        *,
        positive_threshold: float = 0.3,
        negative_threshold: float = 0.3,
        reach: float = 4.0,
        saccade_seed: int = 0,
        time_steps: int = 8,
        **kwargs: Any,
    ) -> None:
        if min(positive_threshold, negative_threshold, reach) <= 0:
            raise ValueError(
                "positive_threshold, negative_threshold and reach must be above 0, got"
                f" {positive_threshold}, {negative_threshold} and {reach}"
            )
        super().__init__(str(user_cache() / "mnist5k-events"), time_steps=time_steps, **kwargs)
        self.positive_threshold, self.negative_threshold = positive_threshold, negative_threshold
        self.reach, self.saccade_seed = reach, saccade_seed

    def simulated(self, image: npt.NDArray[np.uint8], number: int) -> Events:
        """The events of one digit.

        Args:
            image: ``[28, 28]``.
            number: of the digit, which its path depends on.
        """
        key = int(sample_keys(self.saccade_seed, 0, np.array([number]))[0])
        path = saccades(np.random.default_rng(key), FILM, self.reach)
        times = np.arange(FILM, dtype=np.int64) * 5000
        frames = film(image / 255.0, path, self.native_size)
        return brightness_events(frames, times, self.positive_threshold, self.negative_threshold)

    @override
    def read(self, recording: Recording) -> Events:
        """A recording to predict, of any format; the training set is simulated."""
        return read_events(recording.path)

    @override
    def load_arrays(self) -> tuple[Arrays, Arrays]:
        """Return 4,000 training and 1,000 test samples, ``[N, T, 2, 34, 34]``, mapped into memory."""
        source = find_mnist5k()
        images, labels = read_mnist5k(source)
        train, test = stratified_split(labels, TEST_FRACTION)
        folder = cache_folder(self.root, self.cache_dir)
        stat = source.stat()
        sets = []
        for name, rows in (("train", train), ("test", test)):
            frames = SimulatedFrames(self, images, rows)
            settings = (
                f"1 {self.frame_settings(frames.shape)} {self.positive_threshold} {self.negative_threshold}"
                f" {self.reach} {self.saccade_seed} {FILM} {stat.st_size} {stat.st_mtime_ns}"
            )
            path = folder / f"{name}-{short_hash(settings)}.npy"
            sets.append(Arrays(memory_mapped(path, frames), labels[rows]))
        return sets[0], sets[1]
