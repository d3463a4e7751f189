"""Accuracy after every time step, and agreement with a reference, from one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


class AgreementOverTime(Metric):
    """How near the mean of the first t logits comes to the logits of a reference, for every t.

    `compute` gives the share of samples with the same best class, and the mean absolute difference of logits
    in units of the mean absolute logit of the reference.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    same: Tensor
    total: Tensor
    difference: Tensor
    size: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("same", torch.zeros(0, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("difference", torch.zeros(0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("size", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, reference: Tensor) -> None:
        """Count a batch: ``logits [T, B, K]``, ``reference [B, K]``."""
        sums = logits.detach().double().cumsum(dim=0)
        counts = torch.arange(1, len(sums) + 1, device=sums.device).view(-1, 1, 1)
        means, reference = sums / counts, reference.detach().double()
        same = (means.argmax(dim=-1) == reference.argmax(dim=-1)).sum(dim=1)
        difference = (means - reference).abs().sum(dim=(1, 2))
        if not len(self.same):
            self.same, self.difference = torch.zeros_like(same), torch.zeros_like(difference)
        self.same = self.same + same
        self.difference = self.difference + difference
        self.total = self.total + len(reference)
        self.size = self.size + reference.abs().sum()

    def compute(self) -> tuple[Tensor, Tensor]:
        """Share of equal top-1 and relative difference of the logits, ``[T]`` each."""
        return self.same.float() / self.total.clamp(min=1), (
            self.difference / self.size.clamp(min=1e-30)
        ).float()


def repeated_samples(trainer: Any, stage: str, batch: int) -> int:
    """How many samples at the end of a batch other processes have seen already.

    A sampler that has to give every process as many batches as the others repeats samples at the end of its
    share, and says how many by ``repeated``.

    Args:
        trainer: of the evaluation.
        stage: ``"val"`` or ``"test"``.
        batch: its number.
    """
    loaders = getattr(trainer, f"{stage}_dataloaders", None)
    loader = loaders[0] if isinstance(loaders, list | tuple) and len(loaders) == 1 else loaders
    repeated = int(getattr(getattr(loader, "sampler", None), "repeated", 0))
    return repeated if loader is not None and repeated and batch == len(loader) - 1 else 0


def summed(trainer: Any, count: int) -> int:
    """``count`` over all processes."""
    number = torch.tensor(count, device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(number, reduce_op="sum"))


def _padded(counts: Tensor, length: int) -> Tensor:
    """``counts`` made longer; sequences of fewer steps keep their last verdict."""
    missing = length - len(counts)
    if missing <= 0:
        return counts
    last = counts[-1:] if len(counts) else counts.new_zeros(1)
    return torch.cat([counts, last.expand(missing)])
