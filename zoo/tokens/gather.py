"""Tokens of a map: which are taken, put back, or merged.

Axes: T time, B batch, C channels, H W map, N = H * W tokens, K kept tokens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


def token_count(share: float, tokens: int) -> int:
    """``ceil(share * tokens)``, at least 1; a share such as 144 / 196 gives back its 144."""
    return min(tokens, max(1, math.ceil(share * tokens - 1e-9)))


def best_tokens(scores: Tensor, count: int) -> Tensor:
    """Places ``[..., K]`` of the highest scores ``[..., N]``, best first; of equals, the first wins."""
    return scores.sort(dim=-1, descending=True, stable=True).indices[..., :count]


def gather_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Tokens ``index [T or 1, B, K]`` of ``x [T, B, C, H, W]`` -> ``[T, B, C, K, 1]``."""
    T, B, C = x.shape[:3]
    places = index.unsqueeze(2).expand(T, B, C, index.shape[-1])
    return x.flatten(3).gather(3, places).unsqueeze(-1)


def put_tokens(x: Tensor, index: Tensor, tokens: Tensor) -> Tensor:
    """``x [T, B, C, H, W]`` with ``tokens [T, B, C, K, 1]`` at ``index [T or 1, B, K]``."""
    T, B, C = x.shape[:3]
    places = index.unsqueeze(2).expand(T, B, C, index.shape[-1])
    return x.flatten(3).scatter(3, places, tokens.flatten(3).to(x.dtype)).reshape(x.shape)


def nearest_kept(x: Tensor, index: Tensor) -> Tensor:
    """For each token its place ``[B, N]`` among the kept ones ``index [B, K]``.

    Kept tokens have their own; the others that of the most similar kept token, by the cosine of the
    features of all steps.
    """
    features = nn.functional.normalize(x.permute(1, 3, 4, 0, 2).flatten(1, 2).flatten(2), dim=-1)  # [B, N, .]
    kept = features.gather(1, index.unsqueeze(-1).expand(-1, -1, features.shape[-1]))
    target = (features @ kept.transpose(1, 2)).argmax(dim=-1)
    own = torch.arange(index.shape[-1], device=x.device).expand_as(index)
    return target.scatter(1, index, own)


def merge_tokens(x: Tensor, size: Tensor, index: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Size-weighted means of the tokens that go to the same place.

    Args:
        x: ``[T, B, C, H, W]``.
        size: how many of the original tokens each one is the mean of, ``[B, N]``.
        index: kept places ``[B, K]``.
        target: where each token goes, ``[B, N]``, in 0 ... K - 1.

    Returns:
        ``[T, B, C, K, 1]`` and sizes ``[B, K]``.
    """
    T, B, C = x.shape[:3]
    new_size = size.new_zeros(B, index.shape[-1]).scatter_add(1, target, size)
    weighted = x.flatten(3) * size.view(1, B, 1, -1)
    places = target.view(1, B, 1, -1).expand(T, B, C, -1)
    sums = weighted.new_zeros(T, B, C, index.shape[-1]).scatter_add(3, places, weighted)
    return (sums / new_size.view(1, B, 1, -1)).unsqueeze(-1), new_size
