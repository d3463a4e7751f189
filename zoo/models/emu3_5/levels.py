"""The simplest image tokenizer: one code for every pixel, its level of grey."""

from __future__ import annotations

import torch
from torch import Tensor


class Levels:
    """Grey images in K levels.

    Args:
        codes: K.

    Raises:
        ValueError: fewer than two levels.
    """

    def __init__(self, codes: int) -> None:
        if codes < 2:
            raise ValueError(f"grey images need at least 2 levels, got {codes}")
        self.codes = codes

    def encode(self, images: Tensor) -> Tensor:
        """Images ``[N, 1, H, W]`` in [0, 1] -> codes ``[N, H, W]``."""
        return (images[:, 0].clamp(0, 1) * (self.codes - 1)).round().long()

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``[N, H, W]`` -> images ``[N, 1, H, W]`` in [0, 1]."""
        return (codes / (self.codes - 1)).unsqueeze(1)

    def embeddings(self) -> Tensor:
        """Levels spaced from -2 to 2, ``[K, 1]``: squared distances are four times those on [-1, 1]."""
        return torch.linspace(-2, 2, self.codes).unsqueeze(-1)
