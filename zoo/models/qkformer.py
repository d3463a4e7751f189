"""QKFormer: a hierarchical spiking transformer whose early stages attend with one bit a token.

"QKFormer: Hierarchical Spiking Transformer using Q-K Attention", NeurIPS 2024, arXiv 2403.16552; code
zhouchenlin2096/QKFormer. Three stages at a quarter, an eighth and a sixteenth of the side; the first two
mask keys by summed queries, the last attends as Spikformer does. Integers flow between blocks.
In their code the neuron behind the last attention runs over the folded T * B, so that its membrane goes
from one image of a batch to the next; here it runs over T, which is the same for a batch of one.
The authors have one file for each data set, with other names for the same parts; here a stage is
``levels.i``, its patch embedding ``levels.i.0``, and `checkpoint_filter_fn` maps all of their files.

Axes: T time, B batch, C channels, H W map, N = H * W tokens, h heads, d = C / h head width, K classes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from torch import nn
from typing_extensions import override

from spiking.layers import SpikeMatmul, fold_time
from zoo.build import build_model
from zoo.classifier import SpikingModel
from zoo.layers.attention import SSA, SpikingProjections
from zoo.layers.convolution import conv1x1, conv3x3, conv_norm, conv_norm_fire
from zoo.layers.preprocessing import CIFAR10, GREY_DIGITS, IMAGENET, event_frames
from zoo.layers.token_block import TokenBlock
from zoo.layers.transformer import MLP, Block, as_conv_weight, make_neurons, truncated_linear
from zoo.models._family import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.layers.convolution import MakeNeuron

Mask = Literal["token", "channel"]


class QKAttention(SpikingProjections):
    """Q-K attention: queries, summed and fired, mask keys.

    With ``q, k = SN(BN(Conv1x1(x)))`` split into heads ``[d, N]``::

        m = SN_0.5(sum of q over d)     one bit a token and head, or over N: one bit a channel
        out = SN(BN(Conv1x1(m * k)))

    Args:
        dim: C.
        num_heads: h.
        make_neuron: builds one neuron.
        make_attn_neuron: builds the neuron behind the sum.
        mask: ``"token"`` sums the channels of a head, ``"channel"`` the tokens.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        make_neuron: MakeNeuron,
        make_attn_neuron: MakeNeuron,
        mask: Mask = "token",
    ) -> None:
        if mask not in ("token", "channel"):
            raise ValueError(f"mask must be 'token' or 'channel', got {mask!r}")
        super().__init__(dim, num_heads)
        self.mask = mask
        self.add_projections("qk", dim, make_neuron)
        self.sum = SpikeMatmul(spike_operand="b" if mask == "token" else "a")
        self.attn_lif = make_attn_neuron()
        self.proj_conv, self.proj_bn = nn.Conv2d(dim, dim, 1), nn.BatchNorm2d(dim)
        self.proj_lif = make_neuron()

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> spikes ``[T, B, C, H, W]``."""
        q, k = self.project("q", x), self.project("k", x)
        d, N = q.shape[-2:]
        total = self.sum(q.new_ones(1, d), q) if self.mask == "token" else self.sum(q, q.new_ones(N, 1))
        return self.fire("proj", (self.attn_lif(total) * k).reshape(x.shape))

    @override
    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, mask={self.mask!r}"


class PatchEmbed(nn.Module):
    """Convolutions with norm, max-pooling and neuron in a row, and a 1x1 shortcut around the last ones.

    Args:
        c_in: C of the input.
        widths: C of each convolution; they are called ``proj``, ``proj1``, ... from ``first`` on.
        pooling: one digit a convolution, ``"1"`` where a 3x3 max-pooling follows the norm.
        tap: the shortcut starts behind this convolution, -1 at the input.
        make_neuron: builds one neuron.
        first: number in the name of the first convolution, 0 for ``proj``.
        stem: whether the first convolution runs by itself, through `current`, on the image.
    """

    def __init__(
        self,
        c_in: int,
        widths: Sequence[int],
        pooling: str,
        tap: int,
        make_neuron: MakeNeuron,
        first: int = 0,
        stem: bool = False,
    ) -> None:
        super().__init__()
        self.pooling, self.tap, self.stem = pooling, tap, stem
        self.names = [f"proj{first + i or ''}" for i in range(len(widths))]
        for name, before, width in zip(self.names, (c_in, *widths), widths, strict=False):
            self.add_module(f"{name}_conv", conv3x3(before, width))
            self.add_module(f"{name}_bn", nn.BatchNorm2d(width))
            self.add_module(f"{name}_lif", make_neuron())
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        source = c_in if tap < 0 else widths[tap]
        stride = 2 ** pooling[tap + 1 :].count("1")
        self.proj_res_conv, self.proj_res_bn = conv1x1(source, widths[-1], stride), nn.BatchNorm2d(widths[-1])
        self.proj_res_lif = make_neuron()

    def current(self, i: int, x: Tensor, repeats: int = 1) -> Tensor:
        """The i-th convolution, norm and pooling; ``repeats`` as in `zoo.layers.convolution.conv_norm`."""
        conv, norm, _ = self._layers(i)
        x = conv_norm(conv, norm, x, repeats)
        return fold_time(self.maxpool, x) if self.pooling[i] == "1" else x

    def spikes(self, i: int, x: Tensor) -> Tensor:
        """Those of the i-th neuron, which takes `current`."""
        conv, norm, neuron = self._layers(i)
        if self.pooling[i] == "0":
            return conv_norm_fire(conv, norm, neuron, x)
        spikes: Tensor = neuron(self.current(i, x))
        return spikes

    def _layers(self, i: int) -> tuple[nn.Module, nn.Module, nn.Module]:
        conv, norm, neuron = (self.get_submodule(f"{self.names[i]}_{part}") for part in ("conv", "bn", "lif"))
        return conv, norm, neuron

    def forward(self, x: Tensor) -> Tensor:
        """Spikes or sums of spikes ``[T, B, C, H, W]`` -> sums of spikes ``[T, B, C', H', W']``.

        With ``stem`` the input is the current of the first convolution instead.
        """
        source = x
        for i in range(len(self.names)):
            x = self._layers(i)[2](x) if self.stem and i == 0 else self.spikes(i, x)
            if i == self.tap:
                source = x
        return x + conv_norm_fire(self.proj_res_conv, self.proj_res_bn, self.proj_res_lif, source)


class QKFormer(SpikingModel):
    """QKFormer, see the head of this file.

    Args:
        dims: C of each stage.
        depths: blocks of each stage.
        num_heads: h, the same in all stages.
        mlp_ratio: width of the feed-forward part over C.
        stem: front end: ``"imagenet"`` divides the map by 4, ``"cifar"`` keeps it, ``"events"`` divides
            it by 8; ``"half"`` divides it by 2, for small images on small machines (our own).
        mask: of the Q-K attention in all stages but the last, see `QKAttention`.
        time_steps: T for still images.
        in_chans: C of the input.
        num_classes: K.
        neuron: name of the neuron, see ``spiking.list_neurons``.
        neuron_args: its arguments, over the paper's (tau 2, hard reset, sigmoid of slope 4).
    """

    classifier_name = "head"

    def __init__(
        self,
        dims: Sequence[int] = (96, 192, 384),
        depths: Sequence[int] = (1, 2, 7),
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        stem: Literal["imagenet", "cifar", "events", "half"] = "imagenet",
        mask: Mask = "token",
        time_steps: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        neuron: str = "lif",
        neuron_args: dict[str, Any] | None = None,
    ) -> None:
        if len(dims) != len(depths):
            raise ValueError(
                f"dims and depths need one number a stage each, got {list(dims)}, {list(depths)}"
            )
        if stem not in STEMS:
            raise ValueError(f"stem must be one of {', '.join(STEMS)}, got {stem!r}")
        super().__init__(
            num_classes=num_classes, in_chans=in_chans, time_steps=time_steps, num_features=dims[-1]
        )
        make, make_attn = make_neurons(neuron, neuron_args, time_steps)
        shares, pooling, tap = STEMS[stem]
        reduction = 2 ** pooling.count("1")
        stages: list[nn.Module] = []
        for i, (dim, depth) in enumerate(zip(dims, depths, strict=True)):
            if i == 0:
                widths = [dim // share for share in shares]
                embed = PatchEmbed(in_chans, widths, pooling, tap, make, stem=True)
            else:
                order = "10" if stem == "imagenet" else "01"  # pooled by the first or the second of two
                embed = PatchEmbed(dims[i - 1], (dim, dim), order, -1, make, first=3)
                reduction *= 2
            stage = nn.Sequential(embed)
            for _ in range(depth):
                attn = (
                    SSA(dim, num_heads, make, make_attn)
                    if i == len(dims) - 1
                    else QKAttention(dim, num_heads, make, make_attn, mask)
                )
                stage.append(Block(attn, MLP(dim, int(dim * mlp_ratio), make)))
            stages.append(stage)
            self.feature_info.append({"num_chs": dim, "reduction": reduction, "module": f"levels.{i}"})
        self.levels = nn.Sequential(*stages)
        self.head = self.make_classifier(num_classes)

    @override
    def make_classifier(self, num_classes: int) -> nn.Module:
        return truncated_linear(self.num_features, num_classes)

    def forward_stem(self, x: Tensor, repeats: int) -> Tensor:
        """First convolution, norm and pooling: ``[T', B, C, H, W]`` -> ``[T', B, C1, H', W']``."""
        embed = self.get_submodule("levels.0.0")
        assert isinstance(embed, PatchEmbed)
        return embed.current(0, x, repeats)

    def token_blocks(self) -> Sequence[TokenBlock]:
        """All blocks; only behind those of the last stage nothing needs the grid."""
        last = len(self.levels) - 1
        return [
            TokenBlock(
                path=f"levels.{level}.{i}",
                stage=level,
                removable=level == last,
                attention="attn",
                mixer="attn.matmul1" if level == last else None,
            )
            for level, stage in enumerate(self.levels)
            for i, block in enumerate(stage.children())
            if isinstance(block, Block)
        ]


# divisors of C, pooling digits and tap of the first patch embedding
STEMS: dict[str, tuple[tuple[int, ...], str, int]] = {
    "imagenet": ((2, 1, 1), "110", 0),
    "cifar": ((2, 1), "00", 0),
    "events": ((8, 4, 2, 1), "0111", 1),
    "half": ((2, 1), "10", 0),
}


def checkpoint_filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Map the authors' keys to ours.

    Theirs: ``patch_embed1``, ``stage1.0.tssa``, ``stage3.0.attn`` or ``ssa``, ``mlp.fc1`` or ``mlp.mlp1``;
    on events, the second patch embedding begins with ``proj`` instead of ``proj3``.
    """
    renamed = {}
    for key, value in state.items():
        new = re.sub(r"^(patch_embed[23]\.)proj_(conv|bn|lif)\.", r"\1proj3_\2.", key)
        new = re.sub(r"^patch_embed(\d)\.", lambda m: f"levels.{int(m[1]) - 1}.0.", new)
        new = re.sub(r"^stage(\d)\.(\d+)\.", lambda m: f"levels.{int(m[1]) - 1}.{int(m[2]) + 1}.", new)
        new = re.sub(r"\.(tssa|ssa)\.", ".attn.", new)
        renamed[re.sub(r"\.mlp\.mlp(\d)_", r".mlp.fc\1_", new)] = as_conv_weight(key, value)
    return renamed


FAMILY = Family(
    paper="2403.16552",
    first_conv="levels.0.0.proj_conv",
    classifier="head",
    checkpoint_filter_fn=checkpoint_filter_fn,
)
OWN = replace(FAMILY, checkpoint_filter_fn=None)
IMAGENET_UNCROPPED = replace(IMAGENET, crop_pct=1.0)


@FAMILY.register(IMAGENET_UNCROPPED)
def qkformer_10_384(**kwargs: Any) -> QKFormer:
    """10 blocks, 384 channels at the end, 16.5 M parameters, 78.80 % on ImageNet-1k in the paper."""
    return build_model(QKFormer, "qkformer_10_384", {"dims": (96, 192, 384), "num_heads": 6}, **kwargs)


@FAMILY.register(IMAGENET_UNCROPPED)
def qkformer_10_512(**kwargs: Any) -> QKFormer:
    """10 blocks, 512 channels at the end, 29.1 M parameters, 82.04 % on ImageNet-1k in the paper."""
    return build_model(QKFormer, "qkformer_10_512", {"dims": (128, 256, 512), "num_heads": 8}, **kwargs)


@FAMILY.register(IMAGENET_UNCROPPED)
def qkformer_10_768(**kwargs: Any) -> QKFormer:
    """10 blocks, 768 channels at the end, 65.0 M parameters, 84.22 % on ImageNet-1k in the paper.

    85.25 % at 288 and 85.65 % at 384 pixels.
    """
    return build_model(QKFormer, "qkformer_10_768", {"dims": (192, 384, 768), "num_heads": 12}, **kwargs)


@FAMILY.register(CIFAR10)
def qkformer_cifar(**kwargs: Any) -> QKFormer:
    """4 blocks for 32 x 32 images, 96.18 % on CIFAR-10 and 81.15 % on CIFAR-100 in the paper."""
    variant = {"dims": (96, 192, 384), "depths": (1, 1, 2), "num_heads": 8, "stem": "cifar"}
    return build_model(QKFormer, "qkformer_cifar", {**variant, "num_classes": 10}, **kwargs)


EVENT = {"dims": (128, 256), "depths": (1, 1), "num_heads": 16, "stem": "events", "in_chans": 2}


@FAMILY.register(event_frames(2, 128, 10))
def qkformer_cifar10dvs(**kwargs: Any) -> QKFormer:
    """2 blocks for frames of events, 84.0 % on CIFAR10-DVS at T = 16 in the paper."""
    variant = {**EVENT, "mlp_ratio": 1.0, "num_classes": 10, "time_steps": 16}
    return build_model(QKFormer, "qkformer_cifar10dvs", variant, **kwargs)


@FAMILY.register(event_frames(2, 128, 11))
def qkformer_dvsg(**kwargs: Any) -> QKFormer:
    """2 blocks for frames of events of DVS128 Gesture, T = 16."""
    variant = {**EVENT, "mlp_ratio": 4.0, "num_classes": 11, "time_steps": 16}
    return build_model(QKFormer, "qkformer_dvsg", variant, **kwargs)


@OWN.register(GREY_DIGITS, small={"dims": (16, 16, 32), "num_heads": 2})
def qkformer_nano(**kwargs: Any) -> QKFormer:
    """A size of our own for grey digits of 28 x 28; trains in minutes on a CPU."""
    variant = {"dims": (16, 32, 64), "depths": (1, 1, 1), "num_heads": 4, "mlp_ratio": 2.0}
    return build_model(
        QKFormer, "qkformer_nano", {**variant, "stem": "half", "in_chans": 1, "num_classes": 10}, **kwargs
    )
