"""Spiking speech: words as spikes of an artificial cochlea (Cramer et al., 10.1109/TNNLS.2020.3044364).

Axes: N recordings, T time steps, C channels of the cochlea.
"""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from datamodules.arrays import ArrayDataModule
from datamodules.events.count import Counts
from datamodules.events.readers.arrays import opened
from datamodules.loading.cache import cache_folder, memory_mapped, short_hash
from datamodules.loading.datasets import ArrayDataset, Arrays
from datamodules.loading.errors import DataError
from datamodules.loading.random import Keys, integers
from datamodules.loading.splits import HOLD_OUT, Val
from datamodules.transforms import draws
from datamodules.transforms.augmentation import Augmentation

UNITS = 700  # of the cochlea


class SpeechPipeline:
    """Counts ``[N, T, C, 1, 1]`` -> float32; in training all channels of a recording shift alike.

    Args:
        shift: by up to so many channels up or down, as another voice would (Nowotny et al., 2212.01232).
    """

    def __init__(self, shift: int = 0) -> None:
        self.shift = shift

    def __call__(self, counts: Tensor, keys: Keys | None = None) -> Tensor:
        """Transform a batch.

        Args:
            counts: unsigned integers ``[N, T, C, 1, 1]``.
            keys: one random key a sample; drawn from torch's global generator if missing.
        """
        x = counts.to(torch.float32)
        if not self.shift:
            return x
        keys = draws.draw_keys(len(x)) if keys is None else keys
        moved = torch.zeros_like(x)
        for i, by in enumerate((integers(keys, draws.ROLL_Y, 2 * self.shift + 1) - self.shift).tolist()):
            low, high = max(0, by), x.shape[2] + min(0, by)
            moved[i, :, low:high] = x[i, :, low - by : high - by]
        return moved

    def __repr__(self) -> str:
        shift = f"shift by up to {self.shift} channels -> " if self.shift else ""
        return f"{shift}spike counts to float32"


class SpikingSound(ArrayDataModule):
    """Base of sets of spikes over channels and time; batches are ``[B, T, C, 1, 1]``.

    A subclass fills `load_arrays` with counts ``[N, T, C, 1, 1]``, and `load_val` where validation has a set
    of its own.

    Args:
        time_steps: T.
        channels: C.
        shift: in training, see `SpeechPipeline`.
        val: see `ArrayDataModule`.
        kwargs: see `BaseDataModule`.
    """

    native_size = (1, 1)

    def __init__(
        self, *, time_steps: int, channels: int, shift: int = 0, val: Val = HOLD_OUT, **kwargs: Any
    ) -> None:
        super().__init__(val=val, **kwargs)
        for name, value, low in (
            ("time_steps", time_steps, 1),
            ("channels", channels, 1),
            ("shift", shift, 0),
        ):
            if value < low:
                raise ValueError(f"{name} must be at least {low}, got {value}")
        if self.augmentation != Augmentation() or self.image_size is not None:
            raise ValueError(
                "sound takes none of the augmentations and sizes of images; shift moves channels"
            )
        self.time_steps, self.in_chans, self.shift = time_steps, channels, shift
        self.set_statistics([0.0] * channels, [1.0] * channels)
        self.chosen |= {"mean", "std"}

    @property
    @override
    def train_transform(self) -> SpeechPipeline:
        return SpeechPipeline(self.shift)

    @property
    @override
    def eval_transform(self) -> SpeechPipeline:
        return SpeechPipeline()

    def load_val(self) -> Arrays | None:
        """The validation set, ``[N, T, C, 1, 1]``; None: `val` says what validates."""
        return None

    @override
    def setup(self, stage: str | None = None) -> None:
        """Load the sets, once."""
        if self.train_set is not None or stage == "predict":
            return
        super().setup(stage)
        if (own := self.load_val()) is not None:
            self.val_set = ArrayDataset(own, self.eval_transform, self.seed)

    @override
    def facts(self) -> dict[str, Any]:
        return super().facts() | {"interpolation": "nearest"}

    @override
    def predict_dataloader(self) -> DataLoader[Any]:
        """Spikes of a set have no files of their own to predict."""
        raise DataError(f"{type(self).__name__} has nothing to predict; fulgurite test measures its test set")


def count_spikes(
    times: npt.NDArray[Any], units: npt.NDArray[Any], time_steps: int, step: float, channels: int
) -> tuple[Counts, int]:
    """Count spikes by time step and channel.

    Args:
        times: seconds, ``[N]``.
        units: of the cochlea, 0 to 699, ``[N]``.
        time_steps: T.
        step: seconds of one.
        channels: C; neighbouring units share one.

    Returns:
        ``[T, C]``, uint8, or wider where a count needs it; and how many spikes came after the last step.

    Raises:
        DataError: times or units that cannot be.
    """
    if len(times) != len(units):
        raise DataError(f"{len(times)} times and {len(units)} units; each spike has one of both")
    if len(units) and (int(units.min()) < 0 or int(units.max()) >= UNITS):
        raise DataError(f"units are 0 to {UNITS - 1}, got {int(units.min())} to {int(units.max())}")
    if len(times) and not (np.isfinite(times).all() and float(times.min()) >= 0):
        raise DataError("times must be finite and not negative")
    frame = (times.astype(np.float64) / step).astype(np.int64)
    kept = frame < time_steps
    channel = units.astype(np.int64) * channels // UNITS
    counts = np.bincount(frame[kept] * channels + channel[kept], minlength=time_steps * channels)
    narrow = counts.astype(np.min_scalar_type(int(counts.max(initial=0))))
    return narrow.reshape(time_steps, channels), int((~kept).sum())


class LazySpeech:
    """Counts ``[N, T, C, 1, 1]`` of an HDF5 file of spikes, made when asked for."""

    def __init__(self, module: SpeechDataModule, path: Path, file: Any) -> None:
        self.module, self.path, self.file = module, path, file
        self.shape: tuple[int, ...] = (module.time_steps, module.in_chans, 1, 1)
        self._spikes: dict[int, tuple[int, int]] = {}  # by row: those that come too late, and all
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.file["labels"])

    def decode(self, row: int) -> Counts:
        """The counts of one recording, ``[T, C, 1, 1]``."""
        m = self.module
        with self._lock:  # of HDF5, which reads one thing at a time
            times, units = self.file["spikes/times"][row], self.file["spikes/units"][row]
        try:
            counts, late = count_spikes(times, units, m.time_steps, m.step_ms / 1000, m.in_chans)
        except DataError as error:
            raise DataError(f"{self.path}, recording {row}: {error}") from error
        self._spikes[row] = late, len(times)  # a row that is decoded again, for a wider type, counts once
        return counts.reshape(self.shape)

    @property
    def late(self) -> int:
        """Spikes after the last step, of the recordings that were decoded."""
        return sum(late for late, _ in self._spikes.values())

    @property
    def all(self) -> int:
        """All spikes of these."""
        return sum(count for _, count in self._spikes.values())


class SpeechDataModule(SpikingSound):
    """Base of SHD and SSC: HDF5 files with ``spikes/times``, ``spikes/units`` and ``labels``.

    The spikes of every recording are counted by time step and channel, once, and kept in one file beside
    `root`. Nothing is downloaded; an error names the page and the files. Needs h5py (extra ``events``).

    Args:
        root: the folder with the unpacked files.
        time_steps: T; later spikes are left out, with a warning that says how many.
        step_ms: of one, in milliseconds.
        channels: neighbours of the 700 units that are summed into so many.
        cache_dir: another place for the counts.
        kwargs: see `SpikingSound` and `BaseDataModule`.
    """

    files: dict[str, str]  # by split
    page = "https://zenkelab.org/datasets/"

    def __init__(
        self,
        root: str,
        *,
        time_steps: int = 140,
        step_ms: float = 10.0,
        channels: int = 140,
        cache_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not step_ms > 0:
            raise ValueError(f"step_ms must be above 0, got {step_ms}")
        if channels > UNITS:
            raise ValueError(f"channels are at most the {UNITS} units of the cochlea, got {channels}")
        super().__init__(time_steps=time_steps, channels=channels, **kwargs)
        self.root = Path(root).expanduser()
        self.step_ms, self.cache_dir = step_ms, cache_dir

    @override
    def prepare_data(self) -> None:
        """Count the spikes; in one process only."""
        for split in self.files:
            self._counts(split)

    @override
    def load_arrays(self) -> tuple[Arrays, Arrays]:
        """Return the training and the test counts, ``[N, T, C, 1, 1]``, mapped into memory."""
        return self._counts("train"), self._counts("test")

    def _file(self, split: str) -> Path:
        path = self.root / self.files[split]
        if path.is_file():
            return path
        packed = [p.name for p in self.root.glob(f"{path.name}.*")] if self.root.is_dir() else []
        hint = f"unpack {packed[0]}" if packed else f"fetch {path.name} from {self.page} and unpack it"
        raise DataError(f"{self.title} is missing: no {path}; {hint}")

    def _counts(self, split: str) -> Arrays:
        path = self._file(split)
        stat = path.stat()
        settings = (
            f"1 {self.time_steps} {self.step_ms} {self.in_chans} {path.resolve()} {stat.st_size}"
            f" {stat.st_mtime_ns}"
        )
        with opened(path) as file:
            missing = [key for key in ("spikes/times", "spikes/units", "labels") if key not in file]
            if missing:
                raise DataError(
                    f"{path} has no {', '.join(missing)}; it holds {', '.join(file) or 'nothing'}"
                )
            labels = np.asarray(file["labels"], dtype=np.int64)
            if not len(labels) or labels.min() < 0 or labels.max() >= self.num_classes:
                span = f"{labels.min()} to {labels.max()}" if len(labels) else "none"
                raise DataError(f"{path}: labels are 0 to {self.num_classes - 1}, got {span}")
            lazy = LazySpeech(self, path, file)
            folder = cache_folder(self.root, self.cache_dir)
            counts = memory_mapped(folder / f"{path.stem}-{short_hash(settings)}.npy", lazy)
        if lazy.late:
            warnings.warn(
                f"{path}: {lazy.late:,} of {lazy.all:,} spikes come after {self.time_steps} steps of"
                f" {self.step_ms:g} ms and are left out; more time_steps keep them",
                stacklevel=2,
            )
        return Arrays(counts, labels)


class SHDDataModule(SpeechDataModule):
    """Spiking Heidelberg Digits: 8,156 training and 2,264 test recordings of ten digits in two languages.

    Args:
        root: the folder with ``shd_train.h5`` and ``shd_test.h5``.
        kwargs: see `SpeechDataModule`.
    """

    title = "Spiking Heidelberg Digits"
    licence = "CC BY 4.0"
    num_classes = 20
    class_names = (
        *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
        *("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
    )
    files = {"train": "shd_train.h5", "test": "shd_test.h5"}  # noqa: RUF012 - as the base has it

    def __init__(self, root: str = "data/shd", **kwargs: Any) -> None:
        super().__init__(root, **kwargs)


class SSCDataModule(SpeechDataModule):
    """Spiking Speech Commands: 75,466 training, 9,981 validation and 20,382 test recordings of 35 words.

    The checkpoint is chosen on the validation file.

    Args:
        root: the folder with ``ssc_train.h5``, ``ssc_valid.h5`` and ``ssc_test.h5``.
        kwargs: see `SpeechDataModule`.
    """

    title = "Spiking Speech Commands"
    licence = "CC BY 4.0"
    num_classes = 35
    class_names = tuple(f"word {k}" for k in range(35))
    files = {"train": "ssc_train.h5", "val": "ssc_valid.h5", "test": "ssc_test.h5"}  # noqa: RUF012

    def __init__(self, root: str = "data/ssc", **kwargs: Any) -> None:
        super().__init__(root, val="test", **kwargs)
        self.split_names["val"] = "validation"

    @override
    def load_val(self) -> Arrays:
        """Return the validation counts, ``[N, T, C, 1, 1]``, mapped into memory."""
        return self._counts("val")
