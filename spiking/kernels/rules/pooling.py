"""Poolings of what neurons side by side send, in the language of the rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spiking.kernels.rules.expressions import Code, Vec

WINDOW = 4  # neurons of 2 x 2 places, row by row


def in_windows(shape: Sequence[int]) -> bool:
    """Whether maps ``[N, C, H, W]`` of this shape come in windows without a rest."""
    return len(shape) == 4 and shape[2] % 2 == 0 and shape[3] % 2 == 0


def pooled(code: Code, kind: str | None, spikes: Sequence[Vec]) -> Vec:
    """The mean (``"avg"``) or the largest (``"max"``) of a window; without a pooling the only one."""
    best = total = spikes[0]
    for other in spikes[1:]:
        if kind == "max":
            best = code.where(other > best, other, best)
        else:
            total = total + other
    if kind == "max":
        return best
    return total * (1.0 / WINDOW) if kind == "avg" else total


def shares(code: Code, spikes: Sequence[Vec]) -> list[Vec]:
    """Of the gradient of the largest in a window: 1 for the first of the largest, as in PyTorch, else 0."""
    best, better = spikes[0], []
    for other in spikes[1:]:
        better.append(other > best)
        best = code.where(better[-1], other, best)
    left, out = code.as_vec(1.0), []
    for won in reversed(better):
        out.append(code.where(won, left, 0.0))
        left = code.where(won, 0.0, left)
    return [left, *reversed(out)]


def kept(n_saved: int, kind: str | None) -> int:
    """How many numbers a step of a neuron leaves for the way back."""
    return n_saved + (kind == "max")
