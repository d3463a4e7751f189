"""A trained tokenizer as language models use it: images in [0, 1], codes, and the codes' places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.models.emu3_5.ibq.network import IBQ


class Codec:
    """Images in [0, 1] as codes and back, without gradients.

    Args:
        model: the tokenizer; it is put into evaluation mode.
    """

    def __init__(self, model: IBQ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.codes = model.codes

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` in [0, 1] -> codes ``[N, h, w]``."""
        return self.model.to(images.device).encode(images * 2 - 1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``[N, h, w]`` -> images ``[N, C, H, W]`` in [0, 1]."""
        return ((self.model.to(codes.device).decode_code(codes) + 1) / 2).clamp(0, 1)

    def embeddings(self) -> Tensor:
        """The codes' vectors, ``[K, D]``: what DiDA measures distances between."""
        return self.model.quantize.embedding.weight.detach()
