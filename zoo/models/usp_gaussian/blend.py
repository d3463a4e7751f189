"""Alpha blending of sorted Gaussians, tile by tile, with the backward written out.

What is kept for the backward is of the size of the lists (pairs of a tile and a Gaussian); whatever has a
number for each pixel and Gaussian exists for a few tiles at a time and is computed again in the backward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

MAX_ALPHA = 0.99
BUDGET = 1 << 18  # pairs of a pixel and a Gaussian at a time
NOTHING = -1e4  # logarithm of the opacity of what fills lists up


class Chunk(NamedTuple):
    """Some tiles whose lists are about equally long.

    Attributes:
        tiles: their numbers ``[B]``.
        pairs: numbers of their pairs, filled up with 0, ``[B, K]``.
        filled: where they are filled up.
    """

    tiles: Tensor
    pairs: Tensor
    filled: Tensor


def basis(side: int, like: Tensor) -> Tensor:
    """Of the quadratic forms, at the pixels of a tile relative to its middle: 1, x, y, x^2, xy, y^2."""
    at = torch.arange(side, device=like.device, dtype=like.dtype) + 0.5 - side / 2
    x, y = at.repeat(side), at.repeat_interleave(side)
    return torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], dim=1)


def forms(means: Tensor, covariances: Tensor, log_opacities: Tensor, centres: Tensor) -> Tensor:
    """Logarithm of alpha as a polynomial around the middle of a tile.

    Args:
        means: ``[M, 2]``.
        covariances: xx, xy, yy, ``[M, 3]``.
        log_opacities: ``[M]``.
        centres: of the tiles, ``[M, 2]``.

    Returns:
        Coefficients in the order of `basis`, ``[M, 6]``.
    """
    xx, xy, yy = covariances.unbind(-1)
    determinant = xx * yy - xy * xy
    a, b, c = yy / determinant, -xy / determinant, xx / determinant
    dx, dy = (centres - means).unbind(-1)
    along_x, along_y = a * dx + b * dy, b * dx + c * dy
    constant = log_opacities - 0.5 * (dx * along_x + dy * along_y)
    return torch.stack([constant, -along_x, -along_y, -0.5 * a, -b, -0.5 * c], dim=-1)


def chunks(counts: Tensor, pixels: int) -> Iterator[Chunk]:
    """Tiles that show something, in groups within `BUDGET`, the longest lists first."""
    lengths, order = counts.sort(descending=True)
    starts = counts.cumsum(0) - counts
    sizes = lengths.tolist()
    begin, end = 0, int((lengths > 0).sum())
    while begin < end:
        longest = sizes[begin]
        stop = min(end, begin + max(1, BUDGET // (longest * pixels)))
        tiles = order[begin:stop]
        place = torch.arange(longest, device=counts.device)
        filled = place >= counts[tiles].unsqueeze(1)
        yield Chunk(tiles, (starts[tiles].unsqueeze(1) + place).masked_fill(filled, 0), filled)
        begin = stop


class Blend(torch.autograd.Function):
    """``colour = sum_i c_i alpha_i prod_{j<i} (1 - alpha_j)`` and the light that remains.

    Alpha is at most `MAX_ALPHA`; one below ``min_alpha`` counts as 0.

    Takes forms ``[M, 6]``, colours ``[M, C]``, counts ``[tiles]``, side, min_alpha; returns colours
    ``[tiles, P, C]`` and remaining light ``[tiles, P, 1]``, P = side * side.
    """

    @staticmethod
    @override
    def forward(
        ctx: Any, forms: Tensor, colors: Tensor, counts: Tensor, side: int, min_alpha: float
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(forms, colors, counts)
        ctx.side, ctx.min_alpha = side, min_alpha
        powers = basis(side, forms)
        image = forms.new_zeros(len(counts), side * side, colors.shape[1])
        rest = forms.new_ones(len(counts), side * side, 1)
        for chunk in chunks(counts, side * side):
            alpha, before = _weights(forms, chunk, powers, min_alpha)
            rest[chunk.tiles] = before[..., -1:] * (1 - alpha[..., -1:])
            image[chunk.tiles] = before.mul_(alpha) @ colors[chunk.pairs]
        return image, rest

    @staticmethod
    @override
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        forms, colors, counts = ctx.saved_tensors
        grad_image, grad_rest = grads
        powers = basis(ctx.side, forms)
        grad_forms, grad_colors = torch.zeros_like(forms), torch.zeros_like(colors)
        for chunk in chunks(counts, len(powers)):
            alpha, before = _weights(forms, chunk, powers, ctx.min_alpha)
            grad = grad_image[chunk.tiles]
            light = grad @ colors[chunk.pairs].mT  # what a pixel gains by more of each Gaussian
            rest = before[..., -1:] * (1 - alpha[..., -1:])
            weights = alpha * before
            kept = ~chunk.filled
            grad_colors[chunk.pairs[kept]] = (weights.mT @ grad)[kept]
            gains = weights.mul_(light).cumsum(dim=-1)
            behind = gains[..., -1:] + rest * grad_rest[chunk.tiles] - gains
            slope = before.mul_(light).sub_(behind.div_(1 - alpha)).mul_(alpha)
            slope[alpha >= MAX_ALPHA] = 0  # where alpha is held, the Gaussian's shape changes nothing
            grad_forms[chunk.pairs[kept]] = (slope.mT @ powers)[kept]
        return grad_forms, grad_colors, None, None, None


def _weights(forms: Tensor, chunk: Chunk, powers: Tensor, min_alpha: float) -> tuple[Tensor, Tensor]:
    """Alpha and the light that reaches each Gaussian, ``[B, P, K]``."""
    form = forms[chunk.pairs]
    form[..., 0].masked_fill_(chunk.filled, NOTHING)
    alpha = (powers @ form.mT).exp_()
    alpha.masked_fill_(alpha < min_alpha, 0).clamp_(max=MAX_ALPHA)
    logs = (1 - alpha).log_()
    before = logs.cumsum(dim=-1).sub_(logs).exp_()
    return alpha, before
