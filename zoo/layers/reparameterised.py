"""Re-parameterised convolutions: several layers in training, one dense 3x3 convolution at inference.

The form of Meta-SpikeFormer (2404.03663), whose authors pad with what the norm in front gives to zero, so
that the layers fold exactly.

Axes: N images of all steps, C channels, H W map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from zoo.layers.convolution import conv1x1

if TYPE_CHECKING:
    from torch import Tensor


class PaddedNorm(nn.Module):
    """Batch norm, then one pixel of padding with the value that the norm gives to 0.

    That value comes from the running statistics in training, too, and carries no gradient, as in the
    authors' code.

    Args:
        channels: C.
    """

    update_statistics: bool  # switched off while activation checkpointing recomputes

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.update_statistics = True

    @torch.no_grad()
    def padding(self) -> Tensor:
        """``beta - mean * gamma / sqrt(var + eps)``, ``[C]``."""
        return scale_and_shift(self.bn)[1]

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> ``[N, C, H + 2, W + 2]``."""
        before = None if self.update_statistics else self.padding()  # what the first pass has used
        y = F.pad(self.bn(x), (1, 1, 1, 1))
        value = self.padding() if before is None else before
        border = 1.0 - F.pad(y.new_ones(x.shape[-2:]), (1, 1, 1, 1))
        return y + value.to(y.dtype).view(-1, 1, 1) * border


class RepConv(nn.Module):
    """1x1 convolution, `PaddedNorm`, depthwise 3x3, 1x1, norm: a 3x3 convolution in training form.

    Args:
        dim: C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        depthwise = nn.Conv2d(dim, dim, 3, groups=dim, bias=False)
        tail = nn.Sequential(depthwise, conv1x1(dim, dim), nn.BatchNorm2d(dim))
        self.body = nn.Sequential(conv1x1(dim, dim), PaddedNorm(dim), tail)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> ``[N, C, H, W]``."""
        y: Tensor = self.body(x)
        return y

    def kernel_and_bias(self, outer: nn.Module) -> tuple[Tensor, Tensor]:
        """Weight ``[C, C, 3, 3]`` and bias ``[C]`` of the convolution that this and ``outer`` equal.

        Holds for evaluation mode; the padding of that convolution is zero.
        """
        first, padded, tail = self.body.children()
        depthwise, last, norm = tail.children()
        assert isinstance(padded, PaddedNorm)
        s1, b1 = scale_and_shift(padded.bn)
        s2, b2 = scale_and_shift(norm)
        s3, b3 = scale_and_shift(outer)
        left = (s3 * s2).view(-1, 1) * last.get_parameter("weight").flatten(1)  # [C, C]
        taps = depthwise.get_parameter("weight").squeeze(1)  # [C, 3, 3]
        right = s1.view(-1, 1) * first.get_parameter("weight").flatten(1)
        kernel = torch.einsum("oc,cyx,ci->oiyx", left, taps, right)
        bias = left @ (taps.sum(dim=(1, 2)) * b1) + s3 * b2 + b3
        return kernel, bias


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a batch norm does in evaluation mode: ``x * scale + shift``, ``[C]`` each."""
    assert isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale
