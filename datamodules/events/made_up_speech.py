"""Made-up spoken digits as spikes of a cochlea: ten words of vowels and consonants, seeded, no recording.

Each word is a course of formants: the vowels' are those of Peterson and Barney (1952, 10.1121/1.1906875), and
hisses are broad and high. Speakers differ in the length of their vocal tract, their pace and their loudness;
spikes are drawn from Poisson distributions. It is easier than speech, and no substitute for it.

Axes: N words, T time steps, C channels, low to high.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from datamodules.events.speech import SpikingSound
from datamodules.loading.datasets import Arrays
from datamodules.loading.random import sample_keys

Floats = npt.NDArray[np.float64]
SOUNDS: dict[str, tuple[tuple[float, ...], float]] = {  # formants in Hz, or centre of a hiss; loudness
    "iy": ((270, 2290, 3010), 1.0),
    "ih": ((390, 1990, 2550), 1.0),
    "eh": ((530, 1840, 2480), 1.0),
    "ah": ((640, 1190, 2390), 1.0),
    "aa": ((730, 1090, 2440), 1.0),
    "ao": ((570, 840, 2410), 1.0),
    "uw": ((300, 870, 2240), 1.0),
    "er": ((490, 1350, 1690), 1.0),
    "n": ((250, 1200, 2600), 0.5),
    "w": ((290, 610, 2150), 0.6),
    "r": ((310, 1060, 1380), 0.6),
    "z": ((5000.0,), 0.5),
    "s": ((6000.0,), 0.7),
    "f": ((4500.0,), 0.3),
    "v": ((3800.0,), 0.25),
    "th": ((5500.0,), 0.2),
    "-": ((), 0.0),  # the closure of a stop
    "t": ((4000.0,), 0.8),
    "k": ((2000.0,), 0.8),
}
WORDS = {  # sounds and how long they last, relative to each other
    "zero": "z2 ih3 r1 ao4",
    "one": "w2 ah4 n3",
    "two": "t1 uw6",
    "three": "th2 r2 iy5",
    "four": "f2 ao4 er2",
    "five": "f2 aa4 ih2 v2",
    "six": "s3 ih2 -1 k1 s3",
    "seven": "s3 eh3 v1 ah2 n2",
    "eight": "eh3 iy2 -2 t1",
    "nine": "n2 aa4 ih2 n2",
}
LOWEST, HIGHEST = 100.0, 8000.0  # Hz
REST = 0.02  # spikes a channel and step where nothing sounds


def mel(hertz: Any) -> Any:
    """The mel scale, on which channels lie evenly."""
    return 2595.0 * np.log10(1.0 + np.asarray(hertz) / 700.0)


def rates(word: str, channels: int, time_steps: int, random: np.random.Generator) -> Floats:
    """Expected spikes ``[T, C]`` of one speaker's word.

    Args:
        word: one of `WORDS`.
        channels: C.
        time_steps: T; the word fills half to nine tenths of it.
        random: draws the speaker.
    """
    centres = np.linspace(mel(LOWEST), mel(HIGHEST), channels)
    tract = random.uniform(0.85, 1.2)
    parts = []
    for sound in WORDS[word].split():
        (places, loud), length = SOUNDS[sound[:-1]], int(sound[-1]) * random.uniform(0.7, 1.3)
        hiss = len(places) == 1
        at = mel(np.array(places) * (1.0 if hiss else tract * random.uniform(0.96, 1.04, len(places))))
        width = 350.0 if hiss else 60.0
        weight = 1.0 if hiss else np.array([1.0, 0.8, 0.5])[: len(places)]
        bumps = weight * np.exp(-0.5 * ((centres[:, None] - at) / width) ** 2)
        parts.append((loud * bumps.sum(1), length))
    ends = np.cumsum([length for _, length in parts])
    span = time_steps * random.uniform(0.5, 0.9)
    start = random.uniform(0.0, time_steps - span)
    at_time = (np.arange(time_steps) + 0.5 - start) / span * ends[-1]
    middles = ends - np.array([length for _, length in parts]) / 2
    table = np.stack([shape for shape, _ in parts])
    place = np.interp(at_time, middles, np.arange(len(parts)))
    low = np.minimum(place.astype(np.int64), len(parts) - 2)
    share = (place - low)[:, None]
    course = (1 - share) * table[low] + share * table[low + 1]
    heard = (at_time >= 0) & (at_time <= ends[-1])
    rates: npt.NDArray[np.float64] = REST + random.uniform(0.6, 1.2) * course * heard[:, None]
    return rates


class MadeUpSpeechDataModule(SpikingSound):
    """Ten made-up words, see the head of the file; 3,000 to train on, 500 to validate and 1,000 to test.

    Every word is spoken by a speaker of its own, so all three sets hold voices that the others do not.

    Args:
        train_samples: size of the training set.
        val_samples: size of the validation set.
        test_samples: size of the test set.
        speech_seed: of speakers and spikes.
        time_steps: T, of 20 ms each.
        channels: C.
        shift: see `SpikingSound`.
        kwargs: see `BaseDataModule`.
    """

    title = "made-up spoken digits"
    licence = "no restriction: drawn by a program"
    num_classes = 10
    class_names = tuple(WORDS)

    def __init__(
        self,
        *,
        train_samples: int = 3000,
        val_samples: int = 500,
        test_samples: int = 1000,
        speech_seed: int = 0,
        time_steps: int = 50,
        channels: int = 70,
        shift: int = 0,
        **kwargs: Any,
    ) -> None:
        if min(train_samples, val_samples, test_samples) < 1:
            raise ValueError("all three sets need a sample at least")
        super().__init__(time_steps=time_steps, channels=channels, shift=shift, val="test", **kwargs)
        self.samples = {"train": train_samples, "val": val_samples, "test": test_samples}
        self.speech_seed = speech_seed
        self.split_names["val"] = "validation"

    def _spoken(self, split: str) -> Arrays:
        count = self.samples[split]
        labels = np.arange(count, dtype=np.int64) % self.num_classes
        keys = sample_keys(self.speech_seed, list(self.samples).index(split), np.arange(count))
        spikes = np.empty((count, self.time_steps, self.in_chans, 1, 1), np.uint8)
        for i, key in enumerate(keys.tolist()):
            random = np.random.default_rng(key)
            drawn = random.poisson(rates(self.class_names[labels[i]], self.in_chans, self.time_steps, random))
            spikes[i, :, :, 0, 0] = drawn.clip(0, 255)
        return Arrays(spikes, labels)

    @override
    def load_arrays(self) -> tuple[Arrays, Arrays]:
        """Return the training and the test set, ``[N, T, C, 1, 1]``."""
        return self._spoken("train"), self._spoken("test")

    @override
    def load_val(self) -> Arrays:
        """Return the validation set, ``[N, T, C, 1, 1]``."""
        return self._spoken("val")
