"""Gated cross-attention of UP-Diff (arXiv 2407.11578): features look at layout tokens, through closed gates.

Axes: N images, L positions of the features, M layout tokens, C channels of the features, D of the tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class GatedCrossAttention(nn.Module):
    """``x + s tanh(a) Attention(LN(x), tokens)``, then ``x + s tanh(b) FeedForward(LN(x))``.

    Both gates start at 0, so that a new module is the identity. Keys and values are not normalised.

    Args:
        channels: C.
        token_channels: D.
        heads: of the attention, each of C / heads channels.

    Attributes:
        gate: s, a factor of both gates at inference; 0 switches the layout tokens off.
    """

    def __init__(self, channels: int, token_channels: int, heads: int) -> None:
        super().__init__()
        from diffusers.models.attention import FeedForward
        from diffusers.models.attention_processor import Attention

        self.gate = 1.0
        self.alpha_attn = nn.Parameter(torch.tensor(0.0))
        self.alpha_dense = nn.Parameter(torch.tensor(0.0))
        self.attn = Attention(
            query_dim=channels,
            cross_attention_dim=token_channels,
            heads=heads,
            dim_head=channels // heads,
        )
        self.ff = FeedForward(channels, activation_fn="geglu")
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """``[N, L, C]`` and ``[N, M, D]`` -> ``[N, L, C]``."""
        seen: Tensor = self.attn(self.norm1(x), encoder_hidden_states=tokens)
        x = x + self.gate * torch.tanh(self.alpha_attn) * seen
        dense: Tensor = self.ff(self.norm2(x))
        return x + self.gate * torch.tanh(self.alpha_dense) * dense
