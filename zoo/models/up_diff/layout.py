"""What UP-Diff is shown: the image before and the change map, as input channels, as tokens and as a map.

Axes: N images, C H W channels and pixels, r pixels of a side after resizing, M layout tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from spiking.arguments import integer

if TYPE_CHECKING:
    from torch import Tensor

EXTRA_CHANNELS = 8  # of the input branch, beside the noisy latent
HIDDEN = 512  # of the MLP of layout tokens
POSITION_STD = 0.02


def stacked(before: Tensor, change: Tensor, size: int) -> Tensor:
    """``[N, 3, H, W]`` and ``[N, 1, H, W]`` -> ``[N, 4, size, size]``, the nearest pixels."""
    resized = [F.interpolate(x, (size, size), mode="nearest") for x in (before, change)]
    return torch.cat(resized, 1)


class InputBranch(nn.Module):
    """Image and change map as further channels of the noisy latent, a quarter of ``size`` a side.

    Args:
        size: r.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = integer("size", size)
        self.layers = nn.Sequential(
            nn.Conv2d(4, 16, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(16, EXTRA_CHANNELS, 4, stride=2, padding=1),
        )

    def forward(self, before: Tensor, change: Tensor) -> Tensor:
        """``[N, 3, H, W]`` and ``[N, 1, H, W]`` -> ``[N, 8, r / 4, r / 4]``."""
        made: Tensor = self.layers(stacked(before, change, self.size))
        return made


class LayoutEncoder(nn.Module):
    """Image and change map -> layout tokens and the feature map that they are made of.

    The learned 4-to-3 convolution stands in the place of any normalisation of the image.

    Args:
        backbone: ``[N, 3, r, r]`` -> ``[N, channels, r / stride, r / stride]``.
        size: r.
        channels: of the feature map.
        stride: of the backbone.
        token_channels: D of the tokens.
    """

    def __init__(
        self, backbone: nn.Module, *, size: int, channels: int, stride: int, token_channels: int
    ) -> None:
        super().__init__()
        self.size = integer("size", size)
        if size % stride:
            raise ValueError(f"the layout size must be a multiple of {stride}, got {size}")
        self.pos_embedding = nn.Parameter(torch.empty(1, (size // stride) ** 2, channels))
        self.null_feature = nn.Parameter(torch.zeros(channels))
        self.in_conv = nn.Conv2d(4, 3, 3, padding=1)
        self.backbone = backbone
        self.linears = nn.Sequential(
            nn.Linear(channels, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, token_channels),
        )
        nn.init.normal_(self.pos_embedding, std=POSITION_STD)

    def forward(self, before: Tensor, change: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``[N, M, D]`` and feature map ``[N, channels, r / stride, r / stride]``.

        Args:
            before: ``[N, 3, H, W]``.
            change: ``[N, 1, H, W]``.
            mask: ``[N]``; where it is 0 the learned null feature takes the place of the tokens.
        """
        features: Tensor = self.backbone(self.in_conv(stacked(before, change, self.size)))
        m = mask.reshape(-1, 1, 1).to(features.dtype)
        tokens = features.flatten(2).mT
        tokens = m * tokens + (1 - m) * self.null_feature
        mixed: Tensor = self.linears(tokens + self.pos_embedding)
        return mixed, features


class ConvNeXtTiny(nn.Module):
    """ConvNeXt-tiny of timm up to its last stage: ``[N, 3, H, W]`` -> ``[N, 768, H / 32, W / 32]``."""

    channels: ClassVar[int] = 768
    stride: ClassVar[int] = 32

    def __init__(self) -> None:
        super().__init__()
        import timm

        network: Any = timm.create_model("convnext_tiny", pretrained=False, num_classes=0)
        self.stem: nn.Module = network.stem
        self.stages: nn.Module = network.stages

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 3, H, W]`` -> ``[N, 768, H / 32, W / 32]``."""
        made: Tensor = self.stages(self.stem(x))
        return made


class SmallBackbone(nn.Sequential):
    """Two convolutions of stride 2 for small images: ``[N, 3, H, W]`` -> ``[N, 48, H / 4, W / 4]``."""

    channels: ClassVar[int] = 48
    stride: ClassVar[int] = 4

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 24, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(24, self.channels, 4, stride=2, padding=1),
        )


class LayoutMap:
    """The feature map of the call that is running, which all layers below share."""

    def __init__(self) -> None:
        self.features: Tensor | None = None


class LayoutProjection(nn.Module):
    """``proj_out`` of a spatial transformer, which first adds the feature map of the layout.

    Adding comes before the projection. The map is projected before it is resized: both commute, as every
    pixel of the larger map repeats one of the smaller.

    Args:
        proj: the projection.
        layout_channels: of the feature map.
        shared: the map of the call.
    """

    def __init__(self, proj: Any, layout_channels: int, shared: LayoutMap) -> None:
        super().__init__()
        self.proj: nn.Module = proj
        self.proj_sem = nn.Conv2d(layout_channels, int(proj.in_channels), 1)
        self.shared = shared

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, h, w]`` -> ``[N, C', h, w]``."""
        if self.shared.features is None:
            raise RuntimeError("the layout map is missing; call the network, not its UNet")
        added = F.interpolate(self.proj_sem(self.shared.features), x.shape[-2:], mode="nearest")
        made: Tensor = self.proj(x + added)
        return made
