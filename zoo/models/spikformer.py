"""Spikformer: self-attention without softmax on binary queries, keys and values.

"Spikformer: When Spiking Neural Network Meets Transformer", arXiv 2209.15425; code ZK-Zhou/spikformer.
Every block adds spikes to its input (``x + SSA(x)``, ``x + MLP(x)``), so integers flow between blocks.
The authors copy the model for each data set, with 1-d convolutions or linear layers for the same maps;
here all are 1x1 convolutions, and `checkpoint_filter_fn` brings their weights into that shape. Their
blocks also own two layer norms that they never call: these stay out, as they do in the published counts.
The scale of the attention is a constant; the text of the paper calls it learnable.

Axes: T time, B batch, C channels, H W map, N = H * W tokens, h heads, d = C / h head width, K classes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn
from typing_extensions import override

from spiking.layers import fold_time
from zoo.build import build_model
from zoo.classifier import SpikingModel
from zoo.layers import lmht
from zoo.layers.attention import SSA
from zoo.layers.convolution import conv_norm_fire
from zoo.layers.preprocessing import CIFAR10, GREY_DIGITS, IMAGENET, event_frames
from zoo.layers.token_block import TokenBlock
from zoo.layers.transformer import (
    MLP,
    Block,
    PatchSplitting,
    as_conv_weight,
    make_neurons,
    truncated_linear,
)
from zoo.models._family import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.layers.convolution import MakeNeuron


class PatchEmbed(PatchSplitting):
    """Spiking patch splitting (SPS): four times convolution, norm, neuron, pooling; then a position code.

    The position code is a convolution of the patches themselves, ``x + SN(BN(Conv3x3(x)))``.

    Args:
        in_chans: C of the input.
        dim: C of the patches; the convolutions have an eighth, a quarter, a half and all of it.
        pooling: one digit a convolution, ``"1"`` where a 3x3 max-pooling halves the map.
        make_neuron: builds one neuron.
        pool_currents: pool before the neuron instead of behind it.
    """

    def __init__(
        self, in_chans: int, dim: int, pooling: str, make_neuron: MakeNeuron, pool_currents: bool = False
    ) -> None:
        super().__init__(in_chans, dim, pooling, make_neuron)
        self.pool_currents = pool_currents
        self.rpe_lif = make_neuron()

    def forward(self, x: Tensor) -> Tensor:
        """Currents of the first norm ``[T, B, C / 8, H, W]`` -> patches ``[T, B, C, H', W']``."""
        for i, pool in enumerate(self.pooling):
            if i and not (pool == "1" and self.pool_currents):
                x = self.spikes(i, x)
            else:
                x = self.current(i, x) if i else x
                if pool == "1" and self.pool_currents:
                    x = fold_time(self.maxpool, x)
                x = self.fire(i, x)
            if pool == "1" and not self.pool_currents:
                x = fold_time(self.maxpool, x)
        return x + conv_norm_fire(self.rpe_conv, self.rpe_bn, self.rpe_lif, x)

    @override
    def extra_repr(self) -> str:
        return "pool_currents=True" if self.pool_currents else ""


class Spikformer(SpikingModel):
    """Spikformer, see the head of this file.

    The patch splitting and every block count as stages, all on one grid.

    Args:
        dim: C of the tokens.
        num_heads: h.
        depth: number of blocks.
        mlp_ratio: width of the feed-forward part over C.
        pooling: which of the four convolutions in front are followed by a pooling; ``"1111"`` makes
            patches of 16 pixels, ``"0011"`` of 4.
        scale: of the attention.
        qkv_bias: whether the convolutions of q, k and v have a bias, as the authors' CIFAR model has.
        pool_currents: whether the convolutions in front are pooled before their neurons, as in SpikingJelly.
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
        scale: float = 0.125,
        qkv_bias: bool = False,
        pool_currents: bool = False,
        time_steps: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        neuron: str = "lif",
        neuron_args: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_classes=num_classes, in_chans=in_chans, time_steps=time_steps, num_features=dim)
        make, make_attn = make_neurons(neuron, neuron_args, time_steps)
        self.patch_embed = PatchEmbed(in_chans, dim, pooling, make, pool_currents)
        self.block = nn.Sequential()
        for _ in range(depth):
            attn = SSA(dim, num_heads, make, make_attn, scale, qkv_bias)
            self.block.append(Block(attn, MLP(dim, int(dim * mlp_ratio), make)))
        grid = {"num_chs": dim, "reduction": 2 ** self.patch_embed.pooling.count("1")}
        names = ["patch_embed", *(f"block.{i}" for i in range(depth))]
        self.feature_info = [{**grid, "module": name} for name in names]
        self.head = self.make_classifier(num_classes)

    @override
    def make_classifier(self, num_classes: int) -> nn.Module:
        return truncated_linear(self.num_features, num_classes)

    def forward_stem(self, x: Tensor, repeats: int) -> Tensor:
        """First convolution and norm, no neuron: ``[T', B, C, H, W]`` -> ``[T', B, C1, H, W]``."""
        return self.patch_embed.current(0, x, repeats)

    def token_blocks(self) -> Sequence[TokenBlock]:
        """All blocks: they have 1x1 convolutions and attention only."""
        return [
            TokenBlock(path=f"block.{i}", stage=0, removable=True, attention="attn", mixer="attn.matmul1")
            for i in range(len(self.block))
        ]


def lmht_filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Keys of LMHT_SNN -> ours: Spikformer's, with the neurons of LM-HT."""
    return lmht.import_neurons(checkpoint_filter_fn(state, model), model)


UNUSED = re.compile(
    r"^(block\.\d+\.norm[12]|norm|pos_embed)(\.|$)"
)  # owned by the authors' models, never called


def checkpoint_filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Map the authors' keys to ours.

    Theirs are ours, but for linear layers (``q_linear``, ``fc1_linear``) and 1-d convolutions in the
    place of 1x1 convolutions, and for norms and a position embedding that their code never uses.
    """
    kept = {k: v for k, v in state.items() if not UNUSED.match(k)}
    return {k.replace("_linear.", "_conv."): as_conv_weight(k, v) for k, v in kept.items()}


FAMILY = Family(
    paper="2209.15425",
    first_conv="patch_embed.proj_conv",
    classifier="head",
    checkpoint_filter_fn=checkpoint_filter_fn,
)
LMHT = replace(FAMILY, paper=lmht.PAPER, checkpoint_filter_fn=lmht_filter_fn)
OWN = replace(FAMILY, checkpoint_filter_fn=None)
IMAGENET_UNCROPPED = replace(IMAGENET, crop_pct=1.0)
CIFAR10DVS, DVS_GESTURE = event_frames(2, 128, 10), event_frames(2, 128, 11)


@FAMILY.register(IMAGENET_UNCROPPED)
def spikformer_8_384(**kwargs: Any) -> Spikformer:
    """8 blocks of 384 channels, 16.8 M parameters, 70.24 % on ImageNet-1k in the paper."""
    return build_model(Spikformer, "spikformer_8_384", {"dim": 384, "depth": 8}, **kwargs)


@FAMILY.register(IMAGENET_UNCROPPED)
def spikformer_6_512(**kwargs: Any) -> Spikformer:
    """6 blocks of 512 channels, 23.4 M parameters, 72.46 % on ImageNet-1k in the paper."""
    return build_model(Spikformer, "spikformer_6_512", {"dim": 512, "depth": 6}, **kwargs)


@FAMILY.register(IMAGENET_UNCROPPED)
def spikformer_8_512(**kwargs: Any) -> Spikformer:
    """8 blocks of 512 channels, 29.7 M parameters, 73.38 % on ImageNet-1k in the paper."""
    return build_model(Spikformer, "spikformer_8_512", {"dim": 512, "depth": 8}, **kwargs)


@FAMILY.register(IMAGENET_UNCROPPED)
def spikformer_10_512(**kwargs: Any) -> Spikformer:
    """10 blocks of 512 channels, 36.0 M parameters, 73.68 % on ImageNet-1k in the paper."""
    return build_model(Spikformer, "spikformer_10_512", {"dim": 512, "depth": 10}, **kwargs)


@FAMILY.register(IMAGENET_UNCROPPED)
def spikformer_8_768(**kwargs: Any) -> Spikformer:
    """8 blocks of 768 channels, 66.3 M parameters, 74.81 % on ImageNet-1k in the paper."""
    return build_model(Spikformer, "spikformer_8_768", {"dim": 768, "num_heads": 12, "depth": 8}, **kwargs)


SMALL = {"num_heads": 12, "pooling": "0011", "qkv_bias": True, "num_classes": 10}


@FAMILY.register(CIFAR10)
def spikformer_4_256_cifar(**kwargs: Any) -> Spikformer:
    """4 blocks of 256 channels for 32 x 32 images, 93.94 % on CIFAR-10 in the paper."""
    return build_model(
        Spikformer, "spikformer_4_256_cifar", {**SMALL, "dim": 256, "num_heads": 8, "depth": 4}, **kwargs
    )


@FAMILY.register(CIFAR10)
def spikformer_2_384_cifar(**kwargs: Any) -> Spikformer:
    """2 blocks of 384 channels for 32 x 32 images, 94.80 % on CIFAR-10 in the paper."""
    return build_model(Spikformer, "spikformer_2_384_cifar", {**SMALL, "dim": 384, "depth": 2}, **kwargs)


@FAMILY.register(CIFAR10)
def spikformer_4_384_cifar(**kwargs: Any) -> Spikformer:
    """4 blocks of 384 channels for 32 x 32 images, 95.19 % on CIFAR-10 in the paper."""
    return build_model(Spikformer, "spikformer_4_384_cifar", {**SMALL, "dim": 384, "depth": 4}, **kwargs)


@LMHT.register(CIFAR10)
def lmht_spikformer_4_384_cifar(**kwargs: Any) -> Spikformer:
    """`spikformer_4_384_cifar` with LM-HT neurons, all of threshold 2 / L, behind the attention, too."""
    variant = {**SMALL, "dim": 384, "depth": 4, **lmht.VARIANT}
    return build_model(Spikformer, "lmht_spikformer_4_384_cifar", variant, **kwargs)


EVENT = {"dim": 256, "depth": 2, "scale": 0.25, "time_steps": 16}


@FAMILY.register(CIFAR10DVS)
def spikformer_2_256_cifar10dvs(**kwargs: Any) -> Spikformer:
    """2 blocks of 256 channels for frames of events, 80.9 % on CIFAR10-DVS at T = 16 in the paper."""
    variant = {**EVENT, "num_heads": 16, "in_chans": 2, "num_classes": 10}
    return build_model(Spikformer, "spikformer_2_256_cifar10dvs", variant, **kwargs)


@FAMILY.register(DVS_GESTURE)
def spikformer_2_256_dvsg(**kwargs: Any) -> Spikformer:
    """2 blocks of 256 channels for frames of events, 98.3 % on DVS128 Gesture at T = 16 in the paper."""
    variant = {**EVENT, "num_heads": 8, "in_chans": 2, "num_classes": 11}
    return build_model(Spikformer, "spikformer_2_256_dvsg", variant, **kwargs)


@LMHT.register(CIFAR10DVS)
def lmht_spikformer_2_256_cifar10dvs(**kwargs: Any) -> Spikformer:
    """`spikformer_2_256_cifar10dvs` with LM-HT neurons, one frame of events a step, T = 10."""
    events = {"num_heads": 16, "in_chans": 2, "num_classes": 10, "neuron": "lmht", "time_steps": 10}
    return build_model(Spikformer, "lmht_spikformer_2_256_cifar10dvs", {**EVENT, **events}, **kwargs)


@OWN.register(GREY_DIGITS, small={"dim": 16, "num_heads": 2})
def spikformer_nano(**kwargs: Any) -> Spikformer:
    """A size of our own for grey digits of 28 x 28; trains in minutes on a CPU."""
    variant = {
        "dim": 64,
        "num_heads": 4,
        "depth": 2,
        "mlp_ratio": 2.0,
        "pooling": "1100",
        "scale": 0.25,
        "in_chans": 1,
        "num_classes": 10,
    }
    return build_model(Spikformer, "spikformer_nano", variant, **kwargs)
