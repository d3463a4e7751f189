"""A trained tokenizer as language models use it: images in [0, 1], codes, and the codes' places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import nn
from typing_extensions import override

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.models.emu3_5.ibq.network import IBQ


class Codec(nn.Module):
    """Images in [0, 1] as codes and back, without gradients.

    Args:
        model: the tokenizer; it is put into evaluation mode, and stays there.
    """

    def __init__(self, model: IBQ) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.codes = model.codes

    @override
    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: what trains with the codes does not train what makes them."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` in [0, 1] -> codes ``[N, h, w]``."""
        return self.model.encode(images * 2 - 1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``[N, h, w]`` -> images ``[N, C, H, W]`` in [0, 1]."""
        return ((self.model.decode_code(codes) + 1) / 2).clamp(0, 1)

    def embeddings(self) -> Tensor:
        """The codes' vectors, ``[K, D]``: what DiDA measures distances between."""
        return self.model.quantize.embedding.weight.detach()
