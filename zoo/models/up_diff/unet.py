"""The UNet of Stable Diffusion as diffusers builds it, with what UP-Diff (arXiv 2407.11578) changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from zoo.models.up_diff.extra import require
from zoo.models.up_diff.fuser import GatedCrossAttention
from zoo.models.up_diff.layout import EXTRA_CHANNELS, LayoutMap, LayoutProjection

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class UNetSizes:
    """Numbers of the UNet.

    Attributes:
        latent_channels: C of the latent; the input has 8 more.
        channels: of each resolution.
        attention: whether each resolution has spatial transformers.
        blocks: residual blocks of each resolution.
        heads: of all attentions.
        context: channels of text embeddings and layout tokens.
        groups: of all group norms.

    Raises:
        ValueError: they do not fit each other.
    """

    latent_channels: int = 4
    channels: Sequence[int] = (320, 640, 1280, 1280)
    attention: Sequence[bool] = (True, True, True, False)
    blocks: int = 2
    heads: int = 8
    context: int = 768
    groups: int = 32

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.attention):
            raise ValueError(
                f"channels has {len(self.channels)} resolutions, attention {len(self.attention)}"
            )
        for label, parts in (("heads", self.heads), ("groups", self.groups)):
            if wrong := [width for width in self.channels if width % parts]:
                raise ValueError(f"channels must be multiples of the {parts} {label}, got {wrong[0]}")


class Tokens(nn.Module):
    """In the place of the network of positions that diffusers has: hands on the tokens that it gets."""

    def forward(self, objs: Tensor) -> Tensor:
        """``[N, M, D]``, as they are."""
        return objs


def build_unet(sizes: UNetSizes, layout_channels: int, shared: LayoutMap) -> Any:
    """The UNet with gated cross-attention in every transformer block and the layout map in every projection.

    Call it with ``cross_attention_kwargs={"gligen": {"objs": tokens}}`` while ``shared`` holds the map.

    Args:
        sizes: its numbers.
        layout_channels: of the map.
        shared: holds the map.
    """
    require("diffusers")
    from diffusers import UNet2DConditionModel

    kinds = ["CrossAttn" if attention else "" for attention in sizes.attention]
    unet: Any = UNet2DConditionModel(
        in_channels=sizes.latent_channels + EXTRA_CHANNELS,
        out_channels=sizes.latent_channels,
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        block_out_channels=tuple(sizes.channels),
        layers_per_block=sizes.blocks,
        cross_attention_dim=sizes.context,
        attention_head_dim=sizes.heads,  # so diffusers calls the number of heads
        norm_num_groups=sizes.groups,
        attention_type="gated",
    )
    unet.position_net = Tokens()
    add_layout(unet, sizes.context, sizes.heads, layout_channels, shared)
    return unet


def add_layout(
    network: nn.Module, token_channels: int, heads: int, layout_channels: int, shared: LayoutMap
) -> None:
    """Put gated cross-attention and the layout map into the spatial transformers of a network of diffusers.

    Args:
        network: built with ``attention_type="gated"``, so that its blocks have a place for it.
        token_channels: D of the layout tokens.
        heads: of the cross-attention.
        layout_channels: of the map.
        shared: holds the map.
    """
    modules: list[Any] = list(network.modules())
    for module in modules:
        if hasattr(module, "fuser"):
            module.fuser = GatedCrossAttention(int(module.dim), token_channels, heads)
        if hasattr(module, "transformer_blocks"):
            module.proj_out = LayoutProjection(module.proj_out, layout_channels, shared)


def each(network: nn.Module, kind: type[nn.Module], do: Callable[[Any], object]) -> None:
    """Call ``do`` with every module of a kind."""
    for module in network.modules():
        if isinstance(module, kind):
            do(module)
