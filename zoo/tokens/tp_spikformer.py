"""TP-Spikformer's token scores: change over time plus difference from the neighbourhood.

"TP-Spikformer: Token Pruned Spiking Transformer", ICLR 2026, arXiv 2603.00527; code
xlzhou126/TP-Spikformer-Token-Pruned-Spiking-Transformer. The formulas of the paper and the released code
differ, so both are here, each under its own name. In the code the kernel that should take a token's
neighbourhood also sums over channels, so that the cosine no longer compares features, and a softmax over
all tokens takes the place of the scaling to 0..1.

Axes: T time, B batch, C channels, H W map, N = H * W tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from zoo.tokens.hooks import Point, Scorer
from zoo.tokens.uncert import to_unit

if TYPE_CHECKING:
    from torch import Tensor


def neighbourhood_distance(x: Tensor, kernel: int) -> Tensor:
    """``1 - cos(token, mean of its kernel x kernel neighbourhood)``, ``[T, B, C, H, W]`` -> ``[T, B, N]``.

    At the border the mean is over what lies inside.
    """
    maps = x.flatten(0, 1)
    mean = F.avg_pool2d(maps, kernel, stride=1, padding=kernel // 2, count_include_pad=False)
    distance = 1.0 - F.cosine_similarity(maps, mean, dim=1)
    return distance.reshape(*x.shape[:2], -1)


def step_change(x: Tensor) -> Tensor:
    """Mean over C of ``|x_t - x_(t-1)|``, with ``|x_1|`` first, ``[T, B, C, H, W]`` -> ``[T, B, N]``."""
    before = torch.cat([torch.zeros_like(x[:1]), x[:-1]])
    return (x - before).abs().mean(dim=2).flatten(2)


def released_temporal(x: Tensor) -> Tensor:
    """Softmax over tokens of the mean absolute step of the channel mean, ``[B, H, W]``; upstream's code.

    With a single step nothing changes, and all tokens are alike.
    """
    m = x.mean(dim=2)  # [T, B, H, W]
    change = m.diff(dim=0).abs().mean(dim=0) if len(m) > 1 else torch.zeros_like(m[0])
    return change.flatten(1).softmax(dim=1).view_as(change)


def released_spatial(x: Tensor, kernel: int) -> Tensor:
    """Softmax over tokens of minus a cosine, ``[B, H, W]``; upstream's code.

    The cosine is that of the time mean with a map whose channels all hold the same: the sum over all
    channels and the zero-padded neighbourhood, over ``kernel ** 2``.
    """
    mean = x.mean(dim=0)  # [B, C, H, W]
    total = mean.sum(dim=1, keepdim=True)
    around = F.avg_pool2d(total, kernel, stride=1, padding=kernel // 2, count_include_pad=True)
    cosine = F.cosine_similarity(mean, around.expand_as(mean), dim=1)
    return (-cosine).flatten(1).softmax(dim=1).view_as(cosine)


class TPPaper(Scorer):
    """Scores as printed in the paper: both terms scaled to 0..1 in each map, then added.

    A choice for every step, so that neurons see other tokens from step to step. How the paper reduces the
    change over channels could not be read; the mean is our reading.

    Args:
        kernel: side of the neighbourhood.
    """

    needs_grid = True
    per_step = True

    def __init__(self, kernel: int = 3) -> None:
        super().__init__()
        self.kernel = check_kernel(kernel)

    def forward(self, x: Tensor, point: Point) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[T, B, N]``."""
        return to_unit(neighbourhood_distance(x, self.kernel)) + to_unit(step_change(x))


class TPCode(Scorer):
    """Scores as the released code computes them: two softmaxes, added; one choice for all steps.

    Args:
        kernel: side of the neighbourhood, 3 in its Spike-driven Transformers and 7 in its QKFormer.
    """

    needs_grid = True

    def __init__(self, kernel: int = 3) -> None:
        super().__init__()
        self.kernel = check_kernel(kernel)

    def forward(self, x: Tensor, point: Point) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[B, N]``."""
        return (released_temporal(x) + released_spatial(x, self.kernel)).flatten(1)


def check_kernel(kernel: int) -> int:
    """An odd side, or an error."""
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel must be an odd number, got {kernel}")
    return kernel
