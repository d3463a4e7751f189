"""What turns logits over time, ``[T, B, K]``, into one number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor


def mean_logit_loss(
    logits: Tensor, target: Tensor, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the mean over T (STBP and most of the field).

    Args:
        logits: ``[T, B, K]``.
        target: class numbers ``[B]``, or soft targets ``[B, K]`` from mixup.
        label_smoothing: share of the target that is spread over all classes.
        class_weights: weight of each class, ``[K]``; the mean is over weights, as torch takes it.
    """
    mean = logits.mean(dim=0)
    return F.cross_entropy(mean, target, weight=class_weights, label_smoothing=label_smoothing)


def tet_loss(
    logits: Tensor,
    target: Tensor,
    tet_lambda: float = 0.001,
    tet_phi: float = 1.0,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Temporal efficient training (2202.11946): every step is trained by itself.

    ``(1 - lambda) mean_t CE(z[t], y) + lambda mean((z - phi)^2)``.

    Args:
        logits: ``[T, B, K]``.
        target: class numbers ``[B]``, or soft targets ``[B, K]``.
        tet_lambda: weight of the pull of all logits towards ``tet_phi``.
        tet_phi: where the logits are pulled to; the paper takes the firing threshold.
        label_smoothing: share of the target that is spread over all classes.
        class_weights: weight of each class in the cross-entropy, ``[K]``.
    """
    steps = logits.shape[0]
    repeated = target.repeat(steps, *(1,) * (target.dim() - 1))
    loss = F.cross_entropy(
        logits.flatten(0, 1), repeated, weight=class_weights, label_smoothing=label_smoothing
    )
    if tet_lambda == 0.0:
        return loss
    pull = F.mse_loss(logits, torch.full_like(logits, tet_phi))
    return (1.0 - tet_lambda) * loss + tet_lambda * pull
