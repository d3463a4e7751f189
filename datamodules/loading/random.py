"""Counter-based random numbers: one independent stream per (seed, epoch, sample).

A draw depends only on its key and its slot, never on what was drawn before. So augmentations
come out the same with any number of workers, after a resume, and whatever else used the global
generators.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

Keys = npt.NDArray[np.uint64]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # splitmix64 (Steele, Lea, Flood: "Fast splittable generators", 2014)


def _mix(z: Keys) -> Keys:
    """Finalise 64-bit words with the splitmix64 mixer; shape in = shape out."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def sample_keys(seed: int, epoch: int, indices: Sequence[int] | npt.NDArray[np.int64]) -> Keys:
    """Return one 64-bit key per sample.

    Args:
        seed: the data module's seed.
        epoch: epoch number, from 0.
        indices: positions in the data set, ``[N]``.

    Returns:
        Keys of shape ``[N]``.
    """
    index = np.asarray(indices).astype(np.uint64)
    stream = np.array([(seed * _GOLDEN + 1) & _MASK], dtype=np.uint64)
    stream = _mix(_mix(stream) + np.uint64((epoch * _GOLDEN + 1) & _MASK))
    return _mix(stream + (index + np.uint64(1)) * np.uint64(_GOLDEN))


def uniforms(keys: Keys, slot: int) -> npt.NDArray[np.float64]:
    """Return numbers in [0, 1), one per key; each slot is an independent draw.

    Args:
        keys: sample keys, ``[N]``.
        slot: number of the draw; callers use a different one for each decision.

    Returns:
        Array of shape ``[N]``.
    """
    bits = _mix(keys + np.uint64(((slot + 1) * 0xD1B54A32D192ED03) & _MASK))
    result: npt.NDArray[np.float64] = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return result


def integers(keys: Keys, slot: int, high: int) -> npt.NDArray[np.int64]:
    """Return whole numbers in [0, high), one per key; shape ``[N]``."""
    return (uniforms(keys, slot) * high).astype(np.int64)


def seed_everything(key: int) -> None:
    """Set the three global CPU generators from one sample key; use inside `kept_generators`."""
    random.seed(key)
    np.random.seed(key & 0xFFFFFFFF)  # noqa: NPY002  timm's RandAugment draws from the legacy one
    torch.default_generator.manual_seed(key & (_MASK >> 1))


@contextlib.contextmanager
def kept_generators() -> Iterator[None]:
    """Put the global CPU generators back on leaving, so that nobody notices the draws within."""
    python, legacy, own = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        torch.set_rng_state(own)
