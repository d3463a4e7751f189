"""Fixed splits of labelled samples, and what they are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from datamodules.loading.random import sample_keys

SPLIT_SEED = 2024  # splits are part of a data set's definition; no run's seed changes them
HOLD_OUT = 0.1  # share of the training samples that choose the checkpoint, where nobody says otherwise
HELD_OUT = "held out of train"

Val = Literal["test"] | float


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which samples of a data set a loader hands out.

    >>> str(Split(name="validation", samples=50000))
    'validation, 50,000 samples'

    Attributes:
        name: as the publisher or the user's folder calls it: ``train``, ``validation``, ``test``; or
            ``held out of train``.
        samples: their number.
    """

    name: str
    samples: int

    def __str__(self) -> str:
        return f"{self.name}, {self.samples:,} samples"


def check_val(val: Val) -> Val:
    """``val`` of a data set with a test set.

    Raises:
        ValueError: it is neither ``test`` nor a fraction.
    """
    if val != "test" and not (isinstance(val, float) and 0.0 < val < 1.0):
        raise ValueError(f"val must be 'test' or a fraction between 0 and 1, got {val!r}")
    return val


def stratified_split(
    labels: npt.NDArray[np.int64], fraction: float, seed: int = SPLIT_SEED
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Hold out the same share of every class; the result depends on labels and seed only.

    Args:
        labels: class numbers ``[N]``.
        fraction: share to hold out, between 0 and 1; at least one sample of each class stays on
            either side where the class has two or more.
        seed: seed of the choice.

    Returns:
        Sorted row numbers (kept, held out).
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"a held-out fraction must lie between 0 and 1, got {fraction}")
    kept, held = [], []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        random = sample_keys(seed, int(label), np.arange(len(rows)))
        rows = rows[np.argsort(random, kind="stable")]
        count = round(len(rows) * fraction)
        count = min(max(count, 1), len(rows) - 1)
        held.append(rows[:count])
        kept.append(rows[count:])
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(held))
