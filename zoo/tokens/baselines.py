"""Plain token scores that every other method has to beat.

Axes: T time, B batch, C channels, H W map, N = H * W tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from zoo.tokens.hooks import Point, Scorer

if TYPE_CHECKING:
    from torch import Tensor


class FiringRate(Scorer):
    """Mean spikes of the neuron in front of the block; of its input, where that is made of spikes."""

    def forward(self, x: Tensor, point: Point) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[B, N]``."""
        return point.spikes(x).mean(dim=(0, 2)).flatten(1)


class FeatureNorm(Scorer):
    """Euclidean norm of the features, mean over T."""

    def forward(self, x: Tensor, point: Point) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[B, N]``."""
        length: Tensor = torch.linalg.vector_norm(x, dim=2)
        return length.mean(dim=0).flatten(1)


class Random(Scorer):
    """The same random order for all images, a strong baseline with ``operator="bypass"``.

    Args:
        seed: of the order.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def forward(self, x: Tensor, point: Point) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[B, N]``."""
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.rand(x.shape[-2] * x.shape[-1], generator=generator)
        return order.to(x.device).expand(x.shape[1], -1)
