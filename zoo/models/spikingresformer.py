"""SpikingResformer: a residual spiking transformer with dual spike self-attention.

"SpikingResformer: Bridging ResNet and Vision Transformer in Spiking Neural Networks", CVPR 2024,
arXiv 2403.14302; code xyshi2000/SpikingResformer. Module names, and with them all state-dict keys
and their order, are those of that code, so its checkpoints load strictly and ours load there.

Axes: T time, B batch, C channels, H W map, N = H * W tokens, M tokens of the patch convolution's
map, h heads, d = C / h head width, K classes. The residual stream is real-valued; every block
starts with its own neuron, so every convolution but the stem's sees binary spikes.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from spiking.layers import TimeBatchNorm2d, fold_time
from zoo.build import build_model
from zoo.classifier import SpikingModel
from zoo.layers.convolution import leaky_defaults, neuron_factory
from zoo.layers.dual_spike_attention import DSSA
from zoo.layers.preprocessing import CIFAR10_BY_IMAGE, GREY_DIGITS, IMAGENET, event_frames
from zoo.layers.token_block import TokenBlock
from zoo.layers.transformer import INIT_STD, truncated_linear
from zoo.models._family import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.layers.convolution import MakeNeuron

NEURON_DEFAULTS = leaky_defaults(surrogate="atan")  # alpha = 2


class SpikeConvNorm(nn.Sequential):
    """Neuron (key ``0``), convolution (``1``) and norm (``2``)."""

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[T, B, C', H, W]``."""
        neuron, conv, norm = self
        y: Tensor = norm(fold_time(conv, neuron(x)))
        return y


class GWFFN(nn.Module):
    """Group-wise spiking feed-forward: 1x1 up, grouped 3x3 with its own shortcut, 1x1 down.

    Args:
        in_channels: C.
        num_conv: grouped convolutions in a row.
        ratio: width of the hidden map over C.
        group_size: channels of one group.
        make_neuron: builds one neuron.
    """

    def __init__(
        self, in_channels: int, num_conv: int, ratio: int, group_size: int, make_neuron: MakeNeuron
    ) -> None:
        super().__init__()
        inner = in_channels * ratio
        if inner % group_size:
            raise ValueError(f"{inner} hidden channels do not divide into groups of {group_size}")

        def part(c_in: int, c_out: int, kernel: int, groups: int = 1) -> SpikeConvNorm:
            conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, groups=groups, bias=False)
            return SpikeConvNorm(make_neuron(), conv, TimeBatchNorm2d(c_out))

        self.up = part(in_channels, inner, 1)
        self.conv = nn.ModuleList(part(inner, inner, 3, inner // group_size) for _ in range(num_conv))
        self.down = part(inner, in_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[T, B, C, H, W]``."""
        u = z = self.up(x)
        for part in self.conv:
            z = part(z)
        y: Tensor = self.down(z + u)
        return y + x


class DownsampleLayer(nn.Module):
    """Neuron, strided 3x3 convolution, norm; no shortcut.

    Args:
        in_channels: C of the input.
        out_channels: C of the output.
        stride: of the convolution.
        make_neuron: builds one neuron.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm = TimeBatchNorm2d(out_channels)
        self.activation = make_neuron()  # runs first; last here because upstream's keys are so

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[T, B, C', H', W']``."""
        y: Tensor = self.norm(fold_time(self.conv, self.activation(x)))
        return y


class SpikingResformer(SpikingModel):
    """SpikingResformer, see the head of this file; its end lists the variants.

    Args:
        planes: C of each stage.
        num_heads: h of each stage.
        patch_sizes: p of each stage.
        depths: pairs of DSSA and GWFFN in each stage.
        group_size: channels a group of the grouped convolution.
        ffn_ratio: width of the feed-forward over C.
        num_conv: grouped convolutions in a feed-forward.
        stem: ``"7x7"`` (stride 2, then max-pool: H / 4), ``"3x3"`` (H) or ``"3x3s2"`` (H / 2).
        img_size: side, or height and width, that the attention scale is computed for when
            ``lenth_from="img_size"``; inputs of any size run.
        time_steps: T for still images.
        in_chans: C of the input.
        num_classes: K.
        neuron: name of the neuron, see ``spiking.list_neurons``.
        neuron_args: its arguments, over the paper's (tau 2, hard reset, ATan, detached reset).
        lenth_from: ``"map"``: attention scale from the actual map. ``"img_size"``: the authors'
            constant; weights that come from elsewhere switch to it.
    """

    def __init__(
        self,
        planes: Sequence[int] = (64, 192, 384),
        num_heads: Sequence[int] = (1, 3, 6),
        patch_sizes: Sequence[int] = (4, 2, 1),
        depths: Sequence[int] = (1, 2, 3),
        group_size: int = 64,
        ffn_ratio: int = 4,
        num_conv: int = 1,
        stem: Literal["7x7", "3x3", "3x3s2"] = "7x7",
        img_size: int | Sequence[int] = 224,
        time_steps: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        neuron: str = "lif",
        neuron_args: dict[str, Any] | None = None,
        lenth_from: Literal["map", "img_size"] = "map",
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            in_chans=in_chans,
            time_steps=time_steps,
            num_features=planes[-1],
        )
        if len({len(planes), len(num_heads), len(patch_sizes), len(depths)}) != 1:
            raise ValueError(
                "planes, num_heads, patch_sizes and depths need one number a stage each, got"
                f" {list(planes)}, {list(num_heads)}, {list(patch_sizes)}, {list(depths)}"
            )
        if lenth_from not in ("map", "img_size"):
            raise ValueError(f"lenth_from must be 'map' or 'img_size', got {lenth_from!r}")
        make = neuron_factory(neuron, neuron_args, NEURON_DEFAULTS, time_steps)
        reduction = _STEM_REDUCTION.get(stem, 0)
        if not reduction:
            raise ValueError(f"stem must be one of {', '.join(_STEM_REDUCTION)}, got {stem!r}")
        self.prologue = _make_stem(stem, in_chans, planes[0])
        height, width = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        height, width = height // reduction, width // reduction
        stages: list[nn.Module] = []
        for i, (c, h, p, depth) in enumerate(zip(planes, num_heads, patch_sizes, depths, strict=True)):
            blocks: list[nn.Module] = []
            if i:
                blocks.append(DownsampleLayer(planes[i - 1], c, 2, make))
                height, width, reduction = height // 2, width // 2, reduction * 2
            for _ in range(depth):
                lenth = (height // p) * (width // p)
                blocks.append(DSSA(c, h, lenth, p, make, lenth_from))
                blocks.append(GWFFN(c, num_conv, ffn_ratio, group_size, make))
            stages.append(nn.Sequential(*blocks))
            self.feature_info.append({"num_chs": c, "reduction": reduction, "module": f"layers.{i}"})
        self.layers = nn.Sequential(*stages)
        self.classifier = self.make_classifier(num_classes)
        self._warned = False
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Linear without bias, as in the paper's code."""
        return truncated_linear(self.num_features, num_classes, bias=False)

    def forward_stem(self, x: Tensor, repeats: int) -> Tensor:
        """Convolution, norm, pool, no neuron: ``[T', B, C, H, W]`` -> ``[T', B, C1, H', W']``."""
        conv, norm, *pool = self.prologue
        x = norm(fold_time(conv, x), repeats=repeats)
        return fold_time(pool[0], x) if pool else x

    def token_blocks(self) -> Sequence[TokenBlock]:
        """Attention where its patch is one token, and all feed-forward blocks.

        The grouped convolution of a feed-forward block runs on the whole grid; only its 1x1 convolutions
        reduce.
        """
        found = []
        for stage, blocks in enumerate(self.layers):
            for i, block in enumerate(blocks.children()):
                path = f"layers.{stage}.{i}"
                if isinstance(block, GWFFN):
                    found.append(TokenBlock(path=path, stage=stage, inner=("up", "down"), entry="up.0"))
                elif isinstance(block, DSSA) and block.patch_size == 1:
                    found.append(TokenBlock(path=path, stage=stage, entry="activation_in"))
        return found

    def encode(self, x: Tensor) -> Tensor:
        """Stem output ``[T, B, C1, H', W']``; warns when attention has no trained rates yet."""
        if not self.training and not torch.compiler.is_compiling():
            self._look_at_rates()
        return super().encode(x)

    def attentions(self) -> dict[str, DSSA]:
        """The attention blocks by path."""
        return {name: m for name, m in self.named_modules() if isinstance(m, DSSA)}

    def set_lenth_from(self, lenth_from: Literal["map", "img_size"]) -> None:
        """Take the attention scale from the map or from ``img_size``; recorded by ``zoo.save``."""
        for block in self.attentions().values():
            block.lenth_from = lenth_from
        self.model_args["lenth_from"] = lenth_from

    def after_import(self) -> None:
        """Foreign weights keep the authors' constant scale, unless the caller chose."""
        if "lenth_from" not in self.model_args:
            self.set_lenth_from("img_size")

    def _look_at_rates(self) -> None:
        unset = []
        for name, block in self.attentions().items():
            if not block.rates_known and not block.firing_rate_x.is_meta:
                block.rates_known = bool(block.firing_rate_x.any() & block.firing_rate_attn.any())
                if not block.rates_known:
                    unset.append(name)
        if unset and not self._warned:
            self._warned = True
            warnings.warn(
                f"the firing rates of {', '.join(unset)} were never set by training, so the rates"
                " of the batch at hand are used; train the model or load trained weights",
                stacklevel=2,
            )


_STEM_REDUCTION = {"7x7": 4, "3x3": 1, "3x3s2": 2}


def _make_stem(stem: str, in_chans: int, width: int) -> nn.Sequential:
    if stem == "7x7":
        conv = nn.Conv2d(in_chans, width, 7, stride=2, padding=3, bias=False)
        return nn.Sequential(conv, TimeBatchNorm2d(width), nn.MaxPool2d(3, stride=2, padding=1))
    stride = _STEM_REDUCTION[stem]
    conv = nn.Conv2d(in_chans, width, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, TimeBatchNorm2d(width))


# -- variants: upstream models/spikingresformer.py ------------------------------------------------

OWN = Family(paper="2403.14302", first_conv="prologue.0", classifier="classifier")
FAMILY = replace(OWN, note="the authors of the paper link theirs in the readme of xyshi2000/SpikingResformer")
IMAGENET_CENTRE = replace(IMAGENET, crop_pct=0.95)


@FAMILY.register(IMAGENET_CENTRE)
def spikingresformer_ti(**kwargs: Any) -> SpikingResformer:
    """Ti: 11.2 M parameters, 74.34 % on ImageNet-1k in the paper."""
    variant = {"planes": (64, 192, 384), "num_heads": (1, 3, 6)}
    return build_model(SpikingResformer, "spikingresformer_ti", variant, **kwargs)


@FAMILY.register(IMAGENET_CENTRE)
def spikingresformer_s(**kwargs: Any) -> SpikingResformer:
    """S: 17.8 M parameters."""
    variant = {"planes": (64, 256, 512), "num_heads": (1, 4, 8)}
    return build_model(SpikingResformer, "spikingresformer_s", variant, **kwargs)


@FAMILY.register(IMAGENET_CENTRE)
def spikingresformer_m(**kwargs: Any) -> SpikingResformer:
    """M: 35.6 M parameters, 77.24 % on ImageNet-1k in the paper."""
    variant = {"planes": (64, 384, 768), "num_heads": (1, 6, 12)}
    return build_model(SpikingResformer, "spikingresformer_m", variant, **kwargs)


@FAMILY.register(IMAGENET_CENTRE)
def spikingresformer_l(**kwargs: Any) -> SpikingResformer:
    """L: 60.4 M parameters, 79.40 % on ImageNet-1k at 288 pixels in the paper."""
    variant = {"planes": (128, 512, 1024), "num_heads": (2, 8, 16)}
    return build_model(SpikingResformer, "spikingresformer_l", variant, **kwargs)


@OWN.register(CIFAR10_BY_IMAGE)
def spikingresformer_cifar(**kwargs: Any) -> SpikingResformer:
    """Ti with a 3x3 stem, for 32 x 32 images ("Ti*" in the paper)."""
    variant = {"stem": "3x3", "img_size": 32, "num_classes": 10}
    return build_model(SpikingResformer, "spikingresformer_cifar", variant, **kwargs)


@OWN.register(event_frames(3, 64, 11))
def spikingresformer_dvsg(**kwargs: Any) -> SpikingResformer:
    """Half-width with PLIF neurons, for event frames (two polarities and their sum)."""
    variant = {
        "planes": (32, 96, 192),
        "num_heads": (1, 3, 6),
        "group_size": 32,
        "stem": "3x3",
        "img_size": 64,
        "time_steps": 16,
        "num_classes": 11,
        "neuron": "plif",
    }
    return build_model(SpikingResformer, "spikingresformer_dvsg", variant, **kwargs)


@OWN.register(GREY_DIGITS, small={"planes": (8, 16, 16), "num_heads": (1, 2, 2), "group_size": 8})
def spikingresformer_nano(**kwargs: Any) -> SpikingResformer:
    """A size of our own for grey digits of 28 x 28 or 32 x 32; trains in minutes on a CPU."""
    variant = {
        "planes": (16, 32, 64),
        "num_heads": (1, 2, 4),
        "depths": (1, 1, 1),
        "group_size": 16,
        "stem": "3x3s2",
        "patch_sizes": (2, 1, 1),
        "img_size": 28,
        "in_chans": 1,
        "num_classes": 10,
    }
    return build_model(SpikingResformer, "spikingresformer_nano", variant, **kwargs)
