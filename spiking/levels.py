"""Thresholds of neurons that send one of several levels; the two conventions, kept apart by name."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_LEVELS = 24  # beyond it the smallest level vanishes in the largest one's float32

# A ReLU in differential code may take back a level if it has sent that much: exactly that much, often, as
# 1 - 1/2 - 1/3 - 1/6 = 0. `track` multiplies what was sent by this, so that rounding does not decide, and
# where all was taken back it leaves 0 instead of what rounding leaves: at most this share of what was there
# or of the smallest level.
ROUNDING = 2.0**-20
MARGIN = 1.0 + ROUNDING


@dataclass(frozen=True)
class Levels:
    """The values that a neuron may send, and from which potential it sends them.

    Level i of a side is ``unit * 2**(n - i)``, i = 1..n, the largest first. Papers give either end:
    `largest` (DCGS) or `smallest` (ECMT); mixing them up changes all levels by ``2**(n - 1)``. Thresholds
    are constants: no gradient flows into them. A side whose threshold is not above 0 is silent.

    Attributes:
        unit: the smallest positive level, one value or broadcastable to a step ``[B, ...]`` with B = 1.
        negative_unit: the size of the smallest negative level if it differs.
        n: levels a side.
        fires: ``"midpoint"``: a level is sent from 0.75 of it; ``"offset"``: from half the smallest level
            below it; ``"single"``: the one threshold upwards from itself, downwards from 0 and below, and
            the potential starts at half of it.
    """

    unit: Tensor
    negative_unit: Tensor | None = None
    n: int = 8
    fires: str = "midpoint"

    def __post_init__(self) -> None:
        """Check what can be checked without looking at values."""
        if not isinstance(self.n, int) or isinstance(self.n, bool) or not 1 <= self.n <= MAX_LEVELS:
            raise ValueError(
                f"the number of levels must be an integer from 1 to {MAX_LEVELS}, got {self.n!r}"
            )
        for side in (self.unit, self.negative_unit):
            if side is not None and side.requires_grad:
                raise ValueError("thresholds are constants of a neuron with levels; pass theta.detach()")

    @classmethod
    def largest(cls, theta: Tensor | float, n: int = 8) -> Levels:
        """DCGS (2503.00301): ``theta`` is the largest level, sent from ``0.75 theta`` on.

        Args:
            theta: one value, or broadcastable to a step, such as ``[1, C, 1, 1]``; 0 or less is silent.
            n: levels a side, ``theta / 2**i``, i = 0..n - 1.
        """
        return cls(_tensor(theta) / 2 ** (n - 1), n=n)

    @classmethod
    def single(cls, theta: Tensor | float) -> Levels:
        """DCGS with plain integrate-and-fire neurons: ``theta`` is the only level; see `fires`."""
        return cls(_tensor(theta), n=1, fires="single")

    @classmethod
    def smallest(cls, base: Tensor | float, negative_base: Tensor | float, n: int = 8) -> Levels:
        """ECMT (2502.21193): ``base`` is the smallest level, sent from ``base / 2`` on.

        Args:
            base: p of the paper, the smallest positive level.
            negative_base: q of the paper, the size of the smallest negative level. Statistics of signals
                without negative values give 0 or less, which silences the side; the official code misfires.
            n: levels a side, ``base * 2**i``, i = 0..n - 1.
        """
        return cls(_tensor(base), _tensor(negative_base), n, fires="offset")

    def check(self, step: torch.Size) -> None:
        """Raise an error if the thresholds do not fit a step ``[B, ...]``."""
        for side in (self.unit, self.negative_unit):
            if side is None or side.numel() == 1:
                continue
            shape = (1,) * (len(step) - side.dim()) + tuple(side.shape)
            fits = len(shape) == len(step) and all(a in (1, b) for a, b in zip(shape, step, strict=True))
            if not fits or shape[0] != 1:
                raise ValueError(
                    f"thresholds {tuple(side.shape)} do not fit steps [B, ...] = {tuple(step)}: they must be"
                    " one value or broadcast to a step, with one entry for the batch"
                )


def _tensor(value: Tensor | float) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(float(value))
