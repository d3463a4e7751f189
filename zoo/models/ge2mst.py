"""Ge2mS-T: grouped coding in time, windows in space, groups of channels; a re-design from an abstract.

"Ge2mS-T: Multi-Dimensional Grouping for Ultra-High Energy Efficiency in Spiking Transformer", arXiv
2604.08894. Only the abstract could be read: ExpG-IF neurons with lossless conversion and a training cost that
does not grow with T, group-wise spiking self-attention (GW-SSA) with tokens grouped at several scales and no
multiplications, convolutions early and attention late. **Equations and sizes are ours, so no number of the
paper belongs to these entries.**

A network is trained in its quantised form, without time axis; `Ge2mST.to_spiking` gives the spiking one, with
the same parameters under the same names and the same outputs. The residual stream is real-valued.

Axes: T time, B batch, C channels, H W map, h heads, d head width, K classes, w side of a window.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from typing_extensions import override

from spiking.neurons import ExpGCode, ExpGIF, ExpGQuant
from zoo.build import build_model
from zoo.classifier import AnalogModel
from zoo.layers.convolution import conv1x1, conv3x3
from zoo.layers.preprocessing import GREY_DIGITS, IMAGENET
from zoo.layers.transformer import truncated_linear
from zoo.layers.window_attention import GWSSA, Layer
from zoo.models._family import Family
from zoo.models._twin import build_twin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.layers.token_block import TokenBlock
    from zoo.layers.window_attention import Activation, MakeActivation


class ConvBlock(nn.Module):
    """Separable convolution and grouped feed-forward part, each with a shortcut.

    Args:
        dim: C.
        group_size: channels of a group of the grouped convolution.
        make: builds one activation.
    """

    def __init__(self, dim: int, group_size: int, make: MakeActivation) -> None:
        super().__init__()
        inner = 2 * dim
        depthwise = nn.Conv2d(inner, inner, 7, padding=3, groups=inner, bias=False)
        self.separable = nn.Sequential(
            Layer(conv1x1(dim, inner), make), Layer(depthwise, make), Layer(conv1x1(inner, dim), make)
        )
        wide = 4 * dim
        if wide % group_size:
            raise ValueError(f"{wide} hidden channels do not divide into groups of {group_size}")
        grouped = nn.Conv2d(wide, wide, 3, padding=1, groups=wide // group_size, bias=False)
        self.up, self.grouped = Layer(conv1x1(dim, wide), make), Layer(grouped, make)
        self.down = Layer(conv1x1(wide, dim), make)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` -> ``[B, C, H, W]``."""
        x = x + self.separable(x)
        u = self.up(x)
        y: Tensor = self.down(u + self.grouped(u))
        return x + y


class AttnBlock(nn.Module):
    """`GWSSA` and a feed-forward part of ratio 4, each with a shortcut.

    Args:
        dim: C.
        num_heads: h.
        windows: see `GWSSA`.
        make: builds one activation.
    """

    def __init__(self, dim: int, num_heads: int, windows: Sequence[int], make: MakeActivation) -> None:
        super().__init__()
        self.attn = GWSSA(dim, num_heads, windows, make)
        self.mlp = nn.Sequential(Layer(conv1x1(dim, 4 * dim), make), Layer(conv1x1(4 * dim, dim), make))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` -> ``[B, C, H, W]``."""
        x = x + self.attn(x)
        y: Tensor = self.mlp(x)
        return x + y


class Ge2mST(AnalogModel):
    """Ge2mS-T, see the head of this file.

    The quantised form answers in one pass. The spiking form answers T steps of logits, whose mean is the
    answer; a step alone is its share of the code, no estimate of the answer. Frames of a sequence are
    independent of each other.

    Args:
        dims: C of the second to the fifth level; the first has half of the first.
        depths: blocks of the five levels; the first three of convolutions, the others of attention.
        num_heads: h of the two levels of attention.
        windows: sides of the attention windows; heads are shared evenly among them.
        group_size: channels of a group of the grouped convolutions.
        groups: G of the code, see `spiking.ExpGCode.grouped`.
        steps_per_group: n of the code; T = G n.
        order: of the code.
        most_spikes: of a neuron in its window; None for no limit.
        stem: ``"7x7"`` (stride 2) or ``"3x3"`` (stride 1, and the third level keeps the map), for small
            images.
        spiking: the spiking form, for evaluation.
        in_chans: C of the input.
        num_classes: K.
    """

    classifier_name = "head"

    def __init__(
        self,
        dims: Sequence[int] = (64, 128, 256, 320),
        depths: Sequence[int] = (1, 1, 2, 6, 2),
        num_heads: Sequence[int] = (8, 10),
        windows: Sequence[int] = (7, 14),
        group_size: int = 64,
        groups: int = 2,
        steps_per_group: int = 2,
        order: Literal["descending", "interleaved"] = "descending",
        most_spikes: int | None = None,
        stem: Literal["7x7", "3x3"] = "7x7",
        spiking: bool = False,
        in_chans: int = 3,
        num_classes: int = 1000,
    ) -> None:
        if (len(dims), len(depths), len(num_heads)) != (4, 5, 2):
            raise ValueError(
                "dims needs four numbers, depths five and num_heads two, got"
                f" {list(dims)}, {list(depths)}, {list(num_heads)}"
            )
        if stem not in ("7x7", "3x3"):
            raise ValueError(f"stem must be '7x7' or '3x3', got {stem!r}")
        super().__init__(num_classes=num_classes, in_chans=in_chans, num_features=dims[-1])
        code = ExpGCode.grouped(groups, steps_per_group, order, most_spikes)
        self.spiking = spiking
        if spiking:
            self.time_steps = code.time_steps

        def make(other: ExpGCode | None) -> Activation:
            return (ExpGIF if spiking else ExpGQuant)(other or code)

        width = dims[0] // 2
        kernel, stride = (7, 2) if stem == "7x7" else (3, 1)
        self.conv = nn.Conv2d(in_chans, width, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        reduction = stride
        levels: list[nn.Module] = []
        strides = (1, 2, 2 if stem == "7x7" else 1, 2, 1)
        for i, (dim, depth) in enumerate(zip((width, *dims), depths, strict=True)):
            level = nn.Sequential()
            if i:
                down = conv3x3(width, dim, strides[i])
                level.append(Layer(down, make))
            for _ in range(depth):
                level.append(
                    ConvBlock(dim, group_size, make)
                    if i < 3
                    else AttnBlock(dim, num_heads[i - 3], windows, make)
                )
            width = dim
            reduction *= strides[i]
            levels.append(level)
            self.feature_info.append({"num_chs": dim, "reduction": reduction, "module": f"levels.{i}"})
        self.levels = nn.Sequential(*levels)
        self.head_neuron = make(None)
        self.head = self.make_classifier(num_classes)

    @override
    def make_classifier(self, num_classes: int) -> nn.Module:
        return truncated_linear(self.num_features, num_classes)

    def forward_stem(self, x: Tensor) -> Tensor:
        """First convolution and norm: ``[B, C, H, W]`` -> ``[B, C', H', W']``.

        In the spiking form real values are multiplied here and by the classifier, nowhere else.
        """
        y: Tensor = self.norm(self.conv(x))
        return y

    def token_blocks(self) -> Sequence[TokenBlock]:
        """Refused: no block can run on part of its tokens.

        Raises:
            ValueError: always, with the reasons.
        """
        raise ValueError(
            f"{self.architecture or type(self).__name__} cannot run on part of its tokens: its attention"
            " works in windows of the whole grid, and a layer gets a whole train, no steps to compare;"
            " Spikformer, QKFormer, Spike-driven Transformers and SpikingResformer can"
        )

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """``[B, C, H, W]`` -> logits ``[B, K]``; in the spiking form ``[T, B, K]``, whose mean they are."""
        neuron = self.head_neuron
        fired: Tensor = neuron(x)
        if isinstance(neuron, ExpGIF):
            weights = torch.tensor(neuron.code.weights, dtype=x.dtype, device=x.device)
            pooled = fired.mean(dim=(-2, -1)) * (weights * neuron.code.time_steps).view(-1, 1, 1)
            pooled = pooled * neuron.known_step().to(x.dtype)
        else:
            pooled = neuron.weigh(lambda levels: levels.mean(dim=(-2, -1)), fired)
        logits: Tensor = pooled if pre_logits else self.head(pooled)
        return logits

    def forward(self, x: Tensor, *, steps: bool = False) -> Tensor:
        """Logits ``[B, K]``; with ``steps=True`` ``[T, B, K]``, of a sequence all T of every frame."""
        if not self.spiking:
            return super().forward(x, steps=steps)
        logits = self.forward_head(self.forward_features(x))  # [T, frames * B, K]
        if x.dim() == 5:
            frames, B = x.shape[:2]
            logits = logits.reshape(-1, frames, B, logits.shape[-1]).transpose(0, 1).flatten(0, 1)
        return logits if steps else logits.mean(dim=0)

    def train(self, mode: bool = True) -> Ge2mST:
        """Switch mode; the spiking form cannot be trained."""
        if mode and self.spiking:
            mode = False
        super().train(mode)
        return self

    def to_spiking(self) -> Ge2mST:
        """The spiking form of this network: a copy with the same parameters, in evaluation mode.

        Raises:
            ValueError: it is spiking already, or was not built by an entry.
        """
        if self.spiking:
            raise ValueError("this network is in its spiking form already")
        return build_twin(self, spiking=True)


FAMILY = Family(paper="2604.08894", first_conv="conv", classifier="head")
IMAGENET_CENTRE = replace(IMAGENET, crop_pct=0.95)


@FAMILY.register(IMAGENET_CENTRE)
def ge2mst_xs(**kwargs: Any) -> Ge2mST:
    """10 M parameters; our design after the paper's abstract."""
    return build_model(Ge2mST, "ge2mst_xs", {"dims": (64, 128, 256, 320)}, **kwargs)


@FAMILY.register(IMAGENET_CENTRE)
def ge2mst_s(**kwargs: Any) -> Ge2mST:
    """21 M parameters; our design after the paper's abstract."""
    return build_model(Ge2mST, "ge2mst_s", {"dims": (96, 192, 384, 480)}, **kwargs)


@FAMILY.register(IMAGENET_CENTRE)
def ge2mst_m(**kwargs: Any) -> Ge2mST:
    """37 M parameters; our design after the paper's abstract."""
    return build_model(Ge2mST, "ge2mst_m", {"dims": (128, 256, 512, 640)}, **kwargs)


@FAMILY.register(GREY_DIGITS, small={"dims": (8, 16, 16, 32), "group_size": 8, "num_heads": (2, 4)})
def ge2mst_nano(**kwargs: Any) -> Ge2mST:
    """A size for grey digits of 28 x 28; our design after the paper's abstract."""
    variant = {
        "dims": (16, 32, 48, 64),
        "depths": (1, 1, 1, 1, 1),
        "num_heads": (4, 4),
        "windows": (2, 4),
        "group_size": 16,
        "in_chans": 1,
        "num_classes": 10,
    }
    return build_model(Ge2mST, "ge2mst_nano", variant, **kwargs)
