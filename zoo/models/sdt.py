"""Spike-driven Transformer: attention by masks and additions, with membrane shortcuts.

"Spike-driven Transformer", NeurIPS 2023, arXiv 2307.01694; code BICLab/Spike-Driven-Transformer. Every
layer starts with its neuron and adds its current to the real-valued stream, so that no integers flow.
Module names, and with them the state-dict keys, are those of that code; its unused ``talking_heads``
convolution stays out. All convolutions but the pointwise ones with a bias are without bias.

Axes: T time, B batch, C channels, H W map, N = H * W tokens, h heads, d = C / h head width, K classes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from spiking.layers import SpikeMatmul, fold_time
from zoo.build import build_model
from zoo.classifier import SpikingModel
from zoo.layers.attention import SpikingProjections, split_heads
from zoo.layers.convolution import conv_norm
from zoo.layers.preprocessing import CIFAR10, GREY_DIGITS, IMAGENET, event_frames
from zoo.layers.token_block import TokenBlock
from zoo.layers.transformer import INIT_STD, Block, MembraneMLP, PatchSplitting, make_neurons
from zoo.models._family import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.layers.convolution import MakeNeuron


class SDSA(SpikingProjections):
    """Spike-driven self-attention, with its own neuron in front; without the shortcut.

    With ``q, k, v = SN(BN(Conv1x1(SN(x))))``::

        m = SN_0.5(sum over tokens of k * v)      [T, B, C, 1]: one bit a channel
        out = BN(Conv1x1(q * m))

    The products are masks of bits, so only the sum adds.

    Args:
        dim: C.
        num_heads: h; only `erode` sees the heads.
        make_neuron: builds one neuron.
        make_attn_neuron: builds the neuron behind the sum.
        erode: max-pool k, v, ``k * v`` and ``q * m`` over 3x3 windows, as the authors do on CIFAR10-DVS;
            the windows of k and v lie on the map, those of the products on tokens and channels of a head.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        make_neuron: MakeNeuron,
        make_attn_neuron: MakeNeuron,
        erode: bool = False,
    ) -> None:
        super().__init__(dim, num_heads)
        self.shortcut_lif = make_neuron()
        self.add_projections("qkv", dim, make_neuron)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1) if erode else None
        self.token_sum = SpikeMatmul(spike_operand="a")
        self.talking_heads_lif = make_attn_neuron()
        self.proj_conv, self.proj_bn = nn.Conv2d(dim, dim, 1), nn.BatchNorm2d(dim)

    def project(self, name: str, x: Tensor) -> Tensor:
        """Spikes by heads, pooled if that is on: ``[T, B, C, H, W]`` -> ``[T, B, h, d, N]``."""
        y = self.fire(name, x)
        if self.pool is not None and name != "q":
            y = fold_time(self.pool, y)
        return split_heads(y, self.num_heads)

    def forward(self, x: Tensor) -> Tensor:
        """Currents ``[T, B, C, H, W]`` -> currents ``[T, B, C, H, W]``."""
        spikes = self.shortcut_lif(x)
        q, k, v = (self.project(name, spikes) for name in "qkv")
        both = self._eroded(k * v)
        mask = self.talking_heads_lif(self.token_sum(both, both.new_ones(both.shape[-1], 1)))
        y = self._eroded(q * mask).reshape(x.shape)
        return conv_norm(self.proj_conv, self.proj_bn, y)

    def _eroded(self, x: Tensor) -> Tensor:
        return x if self.pool is None else fold_time(self.pool, x)


class PatchEmbed(PatchSplitting):
    """Patch splitting (SPS) that ends in a current: the last convolution is pooled before its neuron.

    Its arguments are those of `PatchSplitting`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Currents of the first norm ``[T, B, C / 8, H, W]`` -> currents ``[T, B, C, H', W']``."""
        for i in range(3):
            x = self.fire(i, x)
            if self.pooling[i] == "1":
                x = fold_time(self.maxpool, x)
            x = self.current(i + 1, x)
        if self.pooling[3] == "1":
            x = fold_time(self.maxpool, x)
        return x + conv_norm(self.rpe_conv, self.rpe_bn, self.fire(3, x))


class SpikeDrivenTransformer(SpikingModel):
    """Spike-driven Transformer, see the head of this file.

    The patch splitting and every block count as stages, all on one grid; their outputs are currents.

    Args:
        dim: C of the tokens.
        num_heads: h.
        depth: number of blocks.
        mlp_ratio: width of the feed-forward part over C.
        pooling: which of the four convolutions in front are followed by a pooling; ``"1111"`` makes
            patches of 16 pixels, ``"0011"`` of 4.
        erode: see `SDSA`.
        time_steps: T for still images.
        in_chans: C of the input.
        num_classes: K.
        neuron: name of the neuron, see ``spiking.list_neurons``.
        neuron_args: its arguments, over the paper's (tau 2, hard reset, sigmoid of slope 4).
    """

    classifier_name = "head"

    def __init__(
        self,
        dim: int = 512,
        num_heads: int = 8,
        depth: int = 8,
        mlp_ratio: float = 4.0,
        pooling: str = "1111",
        erode: bool = False,
        time_steps: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        neuron: str = "lif",
        neuron_args: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_classes=num_classes, in_chans=in_chans, time_steps=time_steps, num_features=dim)
        make, make_attn = make_neurons(neuron, neuron_args, time_steps)
        self.patch_embed = PatchEmbed(in_chans, dim, pooling, make)
        self.block = nn.Sequential()
        for _ in range(depth):
            attn = SDSA(dim, num_heads, make, make_attn, erode)
            self.block.append(Block(attn, MembraneMLP(dim, int(dim * mlp_ratio), make)))
        grid = {"num_chs": dim, "reduction": 2 ** self.patch_embed.pooling.count("1")}
        names = ["patch_embed", *(f"block.{i}" for i in range(depth))]
        self.feature_info = [{**grid, "module": name} for name in names]
        self.head_lif = make()
        self.head = self.make_classifier(num_classes)
        for module in self.modules():  # the authors' code; their linear layer keeps PyTorch's values
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_stem(self, x: Tensor, repeats: int) -> Tensor:
        """First convolution and norm, no neuron: ``[T', B, C, H, W]`` -> ``[T', B, C1, H, W]``."""
        return self.patch_embed.current(0, x, repeats)

    def token_blocks(self) -> Sequence[TokenBlock]:
        """All blocks, unless their attention pools over neighbours."""
        if any(isinstance(m, SDSA) and m.pool is not None for m in self.modules()):
            return []
        return [
            TokenBlock(
                path=f"block.{i}",
                stage=0,
                removable=True,
                entry="attn.shortcut_lif",
                attention="attn",
                mixer="attn.token_sum",
            )
            for i in range(len(self.block))
        ]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Currents ``[T, B, C, H, W]`` -> mean over the tokens -> spikes -> logits ``[T, B, K]``."""
        x = self.head_lif(x.mean(dim=(-2, -1)))
        return x if pre_logits else self.head(x)


UNUSED = re.compile(r"^(block\.\d+\.attn\.(talking_heads|attn_lif)|patch_embed\.rpe_lif)\.")  # never called


def checkpoint_filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Map the authors' keys to ours: they are the same, but for layers that their code never uses."""
    return {k: v for k, v in state.items() if not UNUSED.match(k)}


FAMILY = Family(
    paper="2307.01694",
    first_conv="patch_embed.proj_conv",
    classifier="head",
    checkpoint_filter_fn=checkpoint_filter_fn,
)
OWN = replace(FAMILY, checkpoint_filter_fn=None)
IMAGENET_CENTRE = replace(IMAGENET, crop_pct=0.95)


@FAMILY.register(IMAGENET_CENTRE)
def sdt_8_384(**kwargs: Any) -> SpikeDrivenTransformer:
    """8 blocks of 384 channels, 16.8 M parameters, 72.28 % on ImageNet-1k in the paper."""
    return build_model(SpikeDrivenTransformer, "sdt_8_384", {"dim": 384, "depth": 8}, **kwargs)


@FAMILY.register(IMAGENET_CENTRE)
def sdt_6_512(**kwargs: Any) -> SpikeDrivenTransformer:
    """6 blocks of 512 channels, 23.4 M parameters, 74.11 % on ImageNet-1k in the paper."""
    return build_model(SpikeDrivenTransformer, "sdt_6_512", {"dim": 512, "depth": 6}, **kwargs)


@FAMILY.register(IMAGENET_CENTRE)
def sdt_8_512(**kwargs: Any) -> SpikeDrivenTransformer:
    """8 blocks of 512 channels, 29.7 M parameters, 74.57 % on ImageNet-1k in the paper."""
    return build_model(SpikeDrivenTransformer, "sdt_8_512", {"dim": 512, "depth": 8}, **kwargs)


@FAMILY.register(IMAGENET_CENTRE)
def sdt_10_512(**kwargs: Any) -> SpikeDrivenTransformer:
    """10 blocks of 512 channels, 36.0 M parameters, 74.66 % on ImageNet-1k in the paper."""
    return build_model(SpikeDrivenTransformer, "sdt_10_512", {"dim": 512, "depth": 10}, **kwargs)


@FAMILY.register(IMAGENET_CENTRE)
def sdt_8_768(**kwargs: Any) -> SpikeDrivenTransformer:
    """8 blocks of 768 channels, 66.3 M parameters, 77.07 % on ImageNet-1k (288 pixels) in the paper."""
    return build_model(SpikeDrivenTransformer, "sdt_8_768", {"dim": 768, "depth": 8}, **kwargs)


@FAMILY.register(CIFAR10)
def sdt_2_512_cifar(**kwargs: Any) -> SpikeDrivenTransformer:
    """2 blocks of 512 channels for 32 x 32 images, 95.6 % on CIFAR-10 (as third parties quote it)."""
    variant = {"dim": 512, "depth": 2, "pooling": "0011", "num_classes": 10}
    return build_model(SpikeDrivenTransformer, "sdt_2_512_cifar", variant, **kwargs)


@FAMILY.register(event_frames(2, 64, 10))
def sdt_2_256_cifar10dvs(**kwargs: Any) -> SpikeDrivenTransformer:
    """2 blocks of 256 channels for frames of events, 80.0 % on CIFAR10-DVS (as third parties quote it)."""
    variant = {"pooling": "0011", "erode": True, "in_chans": 2, "num_classes": 10, "time_steps": 16}
    return build_model(
        SpikeDrivenTransformer, "sdt_2_256_cifar10dvs", {**variant, "dim": 256, "depth": 2}, **kwargs
    )


@FAMILY.register(event_frames(2, 128, 11))
def sdt_2_256_dvsg(**kwargs: Any) -> SpikeDrivenTransformer:
    """2 blocks of 256 channels for frames of events of DVS128 Gesture."""
    variant = {"pooling": "0111", "in_chans": 2, "num_classes": 11, "time_steps": 16}
    return build_model(
        SpikeDrivenTransformer, "sdt_2_256_dvsg", {**variant, "dim": 256, "depth": 2}, **kwargs
    )


@OWN.register(GREY_DIGITS, small={"dim": 16, "num_heads": 2})
def sdt_nano(**kwargs: Any) -> SpikeDrivenTransformer:
    """A size of our own for grey digits of 28 x 28; trains in minutes on a CPU."""
    variant = {"dim": 64, "num_heads": 4, "depth": 2, "mlp_ratio": 2.0, "pooling": "1100"}
    return build_model(
        SpikeDrivenTransformer, "sdt_nano", {**variant, "in_chans": 1, "num_classes": 10}, **kwargs
    )
