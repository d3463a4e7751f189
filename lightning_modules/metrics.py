"""Accuracy after every time step, from one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torchmetrics import Metric

if TYPE_CHECKING:
    from torch import Tensor


class AccuracyOverTime(Metric):
    """Top-k accuracy of the mean of the first t logits, for every t.

    Args:
        top_k: how many of the best classes may hold the right one.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    correct: Tensor
    total: Tensor

    def __init__(self, top_k: int = 1) -> None:
        super().__init__()
        self.top_k = top_k
        self.add_state("correct", torch.zeros(0, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch: ``logits [T, B, K]``, ``target [B]``."""
        prefix = logits.detach().float().cumsum(dim=0)  # the mean's order of classes
        best = prefix.topk(min(self.top_k, prefix.shape[-1]), dim=-1).indices
        hits = (best == target[None, :, None]).any(dim=-1).sum(dim=1)
        longest = max(len(hits), len(self.correct))
        self.correct = _padded(self.correct, longest) + _padded(hits, longest)
        self.total = self.total + target.numel()

    def compute(self) -> Tensor:
        """Accuracy after each step, ``[T]``, for T = 1 a scalar; empty before any sample."""
        return self.correct.float() / self.total.clamp(min=1)


def _padded(counts: Tensor, length: int) -> Tensor:
    """``counts`` made longer; sequences of fewer steps keep their last verdict."""
    missing = length - len(counts)
    if missing <= 0:
        return counts
    last = counts[-1:] if len(counts) else counts.new_zeros(1)
    return torch.cat([counts, last.expand(missing)])
