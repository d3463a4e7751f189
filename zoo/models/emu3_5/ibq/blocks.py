"""Convolutional encoder and decoder of a VQGAN (arXiv 2012.09841), named as in its published weights."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

EPS = 1e-6


class ResidualBlock(nn.Module):
    """Norm, swish and convolution twice, around them a shortcut: ``[N, C, H, W]`` -> ``[N, C', H, W]``."""

    def __init__(self, channels: int, out_channels: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, EPS)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels, EPS)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if channels != out_channels:
            self.nin_shortcut = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        out: Tensor = h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)
        return out


class SpatialAttention(nn.Module):
    """Every pixel looks at every other one, with one head: ``[N, C, H, W]`` -> the same shape."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, EPS)
        self.q, self.k, self.v = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        h = self.norm(x)
        q, k, v = (f(h).flatten(2).mT[:, None] for f in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)[:, 0].mT.reshape(x.shape)
        out: Tensor = x + self.proj_out(mixed)
        return out


class Downsample(nn.Module):
    """Half the side; the border is added right and below only, as the published weights expect."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> ``[N, C, H/2, W/2]``."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Twice the side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> ``[N, C, 2H, 2W]``."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Middle(nn.Module):
    """Two residual blocks with attention between them, at the lowest resolution."""

    def __init__(self, channels: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, groups, dropout)
        self.attn_1 = SpatialAttention(channels, groups)
        self.block_2 = ResidualBlock(channels, channels, groups, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """One pass; the shape stays."""
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention or not, then perhaps a resampling."""

    def __init__(self, widths: Sequence[int], *, attention: bool, groups: int, dropout: float) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.block = nn.ModuleList(ResidualBlock(a, b, groups, dropout) for a, b in pairs)
        self.attn = nn.ModuleList(SpatialAttention(b, groups) for _, b in pairs if attention)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, widths[0], H, W]`` -> ``[N, widths[-1], H', W']``."""
        for n, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[n](x)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                x = getattr(self, name)(x)
        return x


class Encoder(nn.Module):
    """``[N, in_channels, H, W]`` -> ``[N, z_channels, H/f, W/f]`` with f = 2^(levels - 1).

    Args:
        in_channels: of the images.
        z_channels: of what comes out.
        widths: channels of every level, that of the full resolution first.
        first: channels of the first convolution.
        blocks: residual blocks of a level.
        attention: for every level, whether it has attention.
        groups: of the norms.
        dropout: inside residual blocks.
    """

    def __init__(
        self, in_channels: int, z_channels: int, widths: Sequence[int], first: int, blocks: int,
        attention: Sequence[bool], groups: int, dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, first, 3, padding=1)
        self.down = nn.ModuleList()
        before = first
        for n, width in enumerate(widths):
            level = Level([before] + [width] * blocks, attention=attention[n], groups=groups, dropout=dropout)
            if n + 1 < len(widths):
                level.downsample = Downsample(width)
            self.down.append(level)
            before = width
        self.mid = Middle(before, groups, dropout)
        self.norm_out = nn.GroupNorm(groups, before, EPS)
        self.conv_out = nn.Conv2d(before, z_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Features of images."""
        x = self.conv_in(images)
        for level in self.down:
            x = level(x)
        out: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(x))))
        return out


class Decoder(nn.Module):
    """``[N, z_channels, h, w]`` -> ``[N, out_channels, f h, f w]``, with a block a level more."""

    def __init__(
        self, out_channels: int, z_channels: int, widths: Sequence[int], blocks: int,
        attention: Sequence[bool], groups: int, dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        before = widths[-1]
        self.conv_in = nn.Conv2d(z_channels, before, 3, padding=1)
        self.mid = Middle(before, groups, dropout)
        levels: list[Level] = []
        for n in reversed(range(len(widths))):
            made = [before] + [widths[n]] * (blocks + 1)
            level = Level(made, attention=attention[n], groups=groups, dropout=dropout)
            if n:
                level.upsample = Upsample(widths[n])
            levels.insert(0, level)
            before = widths[n]
        self.up = nn.ModuleList(levels)
        self.norm_out = nn.GroupNorm(groups, before, EPS)
        self.conv_out = nn.Conv2d(before, out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Images of features."""
        x = self.mid(self.conv_in(z))
        for n in reversed(range(len(self.up))):
            x = self.up[n](x)
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out
