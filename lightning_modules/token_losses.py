"""Losses over tokens of two kinds: text and image codes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def next_tokens(tokens: Tensor, documents: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """What each place of packed rows predicts.

    Args:
        tokens: ids ``[B, L]``.
        documents: which document each belongs to, ``[B, L]``.
        pad: id of padding, which is never predicted.

    Returns:
        Targets ``[B, L]`` and whether they count, bool ``[B, L]``: not across documents.
    """
    targets, following = tokens.roll(-1, 1), documents.roll(-1, 1)
    counted = (following == documents) & (targets != pad)
    counted[:, -1] = False
    return targets, counted


def target_weights(targets: Tensor, counted: Tensor, first_visual: int, visual_weight: float) -> Tensor:
    """Weight of each target: 1 for text, ``visual_weight`` for image codes, 0 where it does not count."""
    kind = torch.where(targets >= first_visual, visual_weight, 1.0)
    return kind * counted


def weighted_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """``sum(w CE) / sum(w)`` over all processes together.

    Processes may hold unequal weight. Training averages their gradients, so each divides by its share of
    the weight of all of them.

    Args:
        logits: ``[B, L, V]``.
        targets: ids ``[B, L]``.
        weights: ``[B, L]``, not negative.
    """
    losses = cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    total = weights.sum()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        world = torch.distributed.get_world_size()
        torch.distributed.all_reduce(total)
        total = total / world
    return (losses * weights.flatten()).sum() / total.clamp(min=torch.finfo(total.dtype).tiny)
