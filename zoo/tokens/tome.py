"""Token merging by bipartite matching of keys, for attention without softmax.

"Token Merging: Your ViT But Faster", ICLR 2023, arXiv 2210.09461; code facebookresearch/ToMe. Tokens are
split alternately, each of one half proposes to its most similar token of the other, and the best pairs
merge. Its correction of the softmax, log(size), has no place here: rows of the sum over tokens are
multiplied by their sizes instead (`zoo.tokens.hooks.TokenReduction`). Similarity is the cosine of keys
averaged over heads, as there, and over the steps, since one choice holds for all of them (our reading).

Axes: T time, B batch, C channels, N tokens, K kept tokens, h heads, d head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import nn

from zoo.tokens.hooks import Point, Scorer

if TYPE_CHECKING:
    from torch import Tensor


def bipartite_matching(keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Which tokens stay, and where each one goes.

    Args:
        keys: ``[B, N, d]``.
        count: K, at least half of N.

    Returns:
        Kept places ``[B, K]``, rising, and targets ``[B, N]`` in 0 ... K - 1.

    Raises:
        ValueError: more than half of the tokens would have to merge.
    """
    B, N = keys.shape[:2]
    merged = N - count
    if merged > N // 2:
        raise ValueError(
            f"tome merges pairs, so {N} tokens cannot become {count} in one block; keep at least"
            f" {N - N // 2}, or spread the reduction over more blocks"
        )
    keys = nn.functional.normalize(keys, dim=-1)
    scores = keys[:, 1::2] @ keys[:, ::2].transpose(1, 2)  # [B, N // 2, N - N // 2]: odd places propose
    similarity, partner = scores.max(dim=-1)
    going = similarity.sort(dim=-1, descending=True, stable=True).indices[:, :merged]
    stays = torch.ones(B, N, dtype=torch.bool, device=keys.device)
    stays.scatter_(1, 2 * going + 1, False)
    place = stays.cumsum(dim=1) - 1  # of those that stay
    target = place.scatter(1, 2 * going + 1, place.gather(1, 2 * partner.gather(1, going)))
    index = stays.to(torch.int8).sort(dim=1, descending=True, stable=True).indices[:, :count]
    return index, target


@runtime_checkable
class Projects(Protocol):
    """An attention whose queries, keys and values can be had by themselves."""

    def project(self, name: str, x: Tensor) -> Tensor:
        """``"q"``, ``"k"`` or ``"v"`` of ``[T, B, C, H, W]`` by heads, ``[T, B, h, d, N]``."""


class ToMe(Scorer):
    """Merges the most similar pairs, see the head of this file; takes no settings."""

    def check(self, point: Point) -> None:
        """The block must have keys."""
        if point.block.attention is None:
            raise ValueError(f"{point.block.path} has no keys that tome could compare")

    def match(self, x: Tensor, point: Point, count: int) -> tuple[Tensor, Tensor]:
        """Kept places ``[B, K]`` and targets ``[B, N]`` for tokens ``[T, B, C, H, W]``."""
        attention = point.part(point.block.attention)
        assert isinstance(attention, nn.Module)
        assert isinstance(attention, Projects)
        x = point.spikes(x.to(next(attention.parameters()).dtype))
        keys = attention.project("k", x)
        keys = keys if keys.dtype is torch.float64 else keys.float()
        return bipartite_matching(keys.mean(dim=(0, 2)).transpose(1, 2), count)
