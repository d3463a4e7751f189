"""Index-propagation quantiser (IBQ, arXiv 2412.02692): every code learns from every position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What the quantiser makes of features.

    Attributes:
        z: the codes' vectors, ``[N, D, h, w]``.
        codes: their numbers, int64 ``[N, h, w]``.
        loss: how far features and codes are apart, a scalar; 0 in evaluation.
        sample_entropy: mean entropy of a position's code, a scalar; 0 in evaluation, as the next ones.
        mean_entropy: entropy of the mean distribution, a scalar.
    """

    z: Tensor
    codes: Tensor
    loss: Tensor
    sample_entropy: Tensor
    mean_entropy: Tensor

    @property
    def entropy_loss(self) -> Tensor:
        """Small where every position is sure of its code and all codes are used."""
        return self.sample_entropy - self.mean_entropy


class IndexPropagation(nn.Module):
    """Features ``[N, D, h, w]`` -> the code with the largest dot product at every position.

    The forward value is the hard choice; backward it is the softmax over all codes, so that all of them get
    gradients (arXiv 2412.02692; Emu3.5, arXiv 2510.26583, uses it with K = 131,072 and D = 256).

    Args:
        codes: K.
        dim: D.
        beta: weight of what draws the features to the codes.
        temperature: of the entropy term.
        spread: numbers of the codes begin uniform in [-spread, spread]; 1 / K if missing, as published.
    """

    def __init__(
        self, codes: int, dim: int, beta: float = 0.25, temperature: float = 0.01, spread: float | None = None
    ) -> None:
        super().__init__()
        self.beta, self.temperature = beta, temperature
        self.embedding = nn.Embedding(codes, dim)
        most = 1 / codes if spread is None else spread
        nn.init.uniform_(self.embedding.weight, -most, most)

    def forward(self, z: Tensor, *, entropy: bool = False) -> Quantized:
        """Quantise ``z [N, D, h, w]``.

        Args:
            z: the features.
            entropy: whether the entropies are computed; in training mode only, else they are 0.
        """
        book = self.embedding.weight
        logits = torch.einsum("ndhw,kd->nhwk", z, book)
        codes = logits.argmax(-1)
        none = z.new_zeros(())
        if not self.training:
            return Quantized(
                z=self.entry(codes), codes=codes, loss=none, sample_entropy=none, mean_entropy=none
            )
        soft = logits.softmax(-1)
        hard = torch.zeros_like(soft).scatter_(-1, codes[..., None], 1.0)
        picked = (hard - soft.detach() + soft) @ book
        picked, detached = picked.movedim(-1, 1), self.entry(codes)
        loss = F.mse_loss(picked, z) + F.mse_loss(detached.detach(), z)
        loss = loss + self.beta * F.mse_loss(detached, z.detach())
        sample, mean = self._entropies(logits) if entropy else (none, none)
        return Quantized(z=picked, codes=codes, loss=loss, sample_entropy=sample, mean_entropy=mean)

    def entry(self, codes: Tensor) -> Tensor:
        """Vectors ``[N, D, h, w]`` of ``codes [N, h, w]``."""
        found: Tensor = self.embedding(codes)
        return found.movedim(-1, 1)

    def _entropies(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        flat = logits.flatten(0, -2) / self.temperature
        p = flat.softmax(-1)
        sample = -(p * (flat + EPSILON).log_softmax(-1)).sum(-1).mean()
        mean = p.mean(0)
        return sample, -(mean * (mean + EPSILON).log()).sum()
