"""SEW-ResNet: residual networks that join spikes element by element.

"Deep Residual Learning in Spiking Neural Networks", NeurIPS 2021, arXiv 2102.04159; code
fangwei123456/Spike-Element-Wise-ResNet. With A the spikes of the residual path and S those of the
shortcut a block answers ``A + S`` (ADD), ``A * S`` (AND) or ``(1 - A) * S`` (IAND). Under ADD the
values are integers that grow with depth. Module names are those of SpikingJelly's version
(``layer1.0.conv1``, ``layer1.0.bn1``); checkpoints of the authors' own code are mapped.

Axes: T time, B batch, C channels, H W map, K classes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from torch import nn
from typing_extensions import override

from spiking.layers import fold_time
from zoo.build import build_model
from zoo.classifier import SpikingModel
from zoo.layers.convolution import (
    conv1x1,
    conv3x3,
    conv_norm_fire,
    init_convolutions,
    leaky_defaults,
    neuron_factory,
    stem_conv,
)
from zoo.layers.preprocessing import IMAGENET
from zoo.layers.residual import add_stages, check_stages
from zoo.models._family import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.layers.convolution import MakeNeuron

    Connect = Literal["ADD", "AND", "IAND"]

CONNECT = ("ADD", "AND", "IAND")
NEURON_DEFAULTS = leaky_defaults(surrogate="atan")  # alpha = 2


class SEWBlock(nn.Module):
    """What both blocks share: the shortcut and the element-wise function.

    Args:
        c_in: C of the input.
        c_out: C of the output.
        stride: of the first 3x3 convolution.
        make_neuron: builds one neuron.
        connect: the element-wise function.
    """

    expansion = 1

    def __init__(self, c_in: int, c_out: int, stride: int, make_neuron: MakeNeuron, connect: Connect) -> None:
        super().__init__()
        self.connect = connect
        self.build(c_in, c_out // self.expansion, stride, make_neuron)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or c_in != c_out:
            norm = nn.BatchNorm2d(c_out)
            self.downsample = nn.Sequential(conv1x1(c_in, c_out, stride), norm, make_neuron())

    def build(self, c_in: int, width: int, stride: int, make_neuron: MakeNeuron) -> None:
        """Make the layers of the residual path."""
        raise NotImplementedError

    def residual(self, x: Tensor) -> Tensor:
        """Spikes A of the residual path."""
        raise NotImplementedError

    def last_norm(self) -> nn.BatchNorm2d:
        """The norm that zero initialisation acts on."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[T, B, C', H', W']``."""
        a = self.residual(x)
        if self.downsample is not None:
            conv, norm, neuron = self.downsample
            x = conv_norm_fire(conv, norm, neuron, x)
        if self.connect == "ADD":
            return a + x
        if self.connect == "AND":
            return a * x
        # SpikingJelly's Bottleneck has the arguments swapped here; the authors' code has this
        return (1 - a) * x

    @override
    def extra_repr(self) -> str:
        return f"connect={self.connect}"


class SEWBasicBlock(SEWBlock):
    """Two 3x3 convolutions."""

    @override
    def build(self, c_in: int, width: int, stride: int, make_neuron: MakeNeuron) -> None:
        self.conv1, self.bn1 = conv3x3(c_in, width, stride), nn.BatchNorm2d(width)
        self.sn1 = make_neuron()
        self.conv2, self.bn2 = conv3x3(width, width), nn.BatchNorm2d(width)
        self.sn2 = make_neuron()

    @override
    def residual(self, x: Tensor) -> Tensor:
        a = conv_norm_fire(self.conv1, self.bn1, self.sn1, x)
        return conv_norm_fire(self.conv2, self.bn2, self.sn2, a)

    @override
    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn2


class SEWBottleneck(SEWBlock):
    """1x1, 3x3 and 1x1 convolutions; the inner width is a quarter."""

    expansion = 4

    @override
    def build(self, c_in: int, width: int, stride: int, make_neuron: MakeNeuron) -> None:
        self.conv1, self.bn1 = conv1x1(c_in, width), nn.BatchNorm2d(width)
        self.sn1 = make_neuron()
        self.conv2, self.bn2 = conv3x3(width, width, stride), nn.BatchNorm2d(width)
        self.sn2 = make_neuron()
        self.conv3, self.bn3 = conv1x1(width, width * self.expansion), nn.BatchNorm2d(width * self.expansion)
        self.sn3 = make_neuron()

    @override
    def residual(self, x: Tensor) -> Tensor:
        a = conv_norm_fire(self.conv1, self.bn1, self.sn1, x)
        a = conv_norm_fire(self.conv2, self.bn2, self.sn2, a)
        return conv_norm_fire(self.conv3, self.bn3, self.sn3, a)

    @override
    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn3


class SEWResNet(SpikingModel):
    """SEW-ResNet, see the head of this file.

    Args:
        layers: blocks of each stage.
        block: ``"basic"`` or ``"bottleneck"``.
        planes: width of each stage (a bottleneck answers four times as much).
        connect: element-wise function ``"ADD"``, ``"AND"`` or ``"IAND"``.
        zero_init_residual: start the last norm of each block at gain 0 (and for AND at shift 1),
            so that a block with an identity shortcut starts as the identity under ADD and IAND,
            and under AND, where every neuron fires.
        stem: ``"7x7"`` (stride 2, neuron, max-pool: H / 4) or ``"3x3"`` (H), for small images.
        time_steps: T for still images.
        in_chans: C of the input.
        num_classes: K.
        neuron: name of the neuron, see ``spiking.list_neurons``.
        neuron_args: its arguments, over the paper's (threshold 1, hard reset, ATan, detached).
    """

    classifier_name = "fc"

    def __init__(
        self,
        layers: Sequence[int] = (2, 2, 2, 2),
        block: Literal["basic", "bottleneck"] = "basic",
        planes: Sequence[int] = (64, 128, 256, 512),
        connect: Connect = "ADD",
        zero_init_residual: bool = False,
        stem: Literal["7x7", "3x3"] = "7x7",
        time_steps: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        neuron: str = "if",
        neuron_args: dict[str, Any] | None = None,
    ) -> None:
        blocks: dict[str, type[SEWBlock]] = {"basic": SEWBasicBlock, "bottleneck": SEWBottleneck}
        if block not in blocks:
            raise ValueError(f"block must be 'basic' or 'bottleneck', got {block!r}")
        if connect not in CONNECT:
            raise ValueError(f"connect must be one of {', '.join(CONNECT)}, got {connect!r}")
        if stem not in ("7x7", "3x3"):
            raise ValueError(f"stem must be '7x7' or '3x3', got {stem!r}")
        check_stages(layers, planes)
        kind = blocks[block]
        super().__init__(
            num_classes=num_classes,
            in_chans=in_chans,
            time_steps=time_steps,
            num_features=planes[-1] * kind.expansion,
        )
        make = neuron_factory(neuron, neuron_args, NEURON_DEFAULTS, time_steps)
        width = planes[0]
        self.conv1, self.bn1 = stem_conv(stem, in_chans, width), nn.BatchNorm2d(width)
        self.sn1 = make()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "7x7" else None
        self.feature_info = add_stages(
            self,
            lambda c_in, c_out, stride: kind(c_in, c_out, stride, make, connect),
            layers=layers,
            planes=[plane * kind.expansion for plane in planes],
            width=width,
            reduction=4 if stem == "7x7" else 1,
        )
        self.fc = self.make_classifier(num_classes)
        init_convolutions(self)
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, SEWBlock):
                    nn.init.zeros_(module.last_norm().weight)
                    if connect == "AND":
                        nn.init.ones_(module.last_norm().bias)

    def encode(self, x: Tensor) -> Tensor:
        """Spikes behind the stem, pooled: ``[T, B, C1, H', W']``."""
        x, repeats = self.unrolled(x)
        x = conv_norm_fire(self.conv1, self.bn1, self.sn1, x, repeats)
        return x if self.maxpool is None else fold_time(self.maxpool, x)


def checkpoint_filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Map the authors' keys to ours.

    Their blocks wrap a convolution and its norm in one container: ``conv1.module.0`` is our
    ``conv1`` and ``conv1.module.1`` our ``bn1``; releases without the ``module`` level exist.
    SpikingJelly has our names but for the neuron of the shortcut, which has parameters if it is a PLIF.
    """
    renamed = {}
    for key, value in state.items():
        new = re.sub(r"^(layer\d+\.\d+\.)conv(\d)\.(?:module\.)?0\.", r"\1conv\2.", key)
        new = re.sub(r"^(layer\d+\.\d+\.)conv(\d)\.(?:module\.)?1\.", r"\1bn\2.", new)
        new = re.sub(r"^(layer\d+\.\d+\.downsample\.)0\.(?:module\.)?([01])\.", r"\1\2.", new)
        renamed[new.replace(".downsample_sn.", ".downsample.2.")] = value
    return renamed


FAMILY = Family(
    paper="2102.04159",
    first_conv="conv1",
    classifier="fc",
    interpolation="bilinear",
    checkpoint_filter_fn=checkpoint_filter_fn,
)


@FAMILY.register(IMAGENET, small={"layers": (1, 1), "planes": (8, 16), "stem": "3x3"})
def sew_resnet18(**kwargs: Any) -> SEWResNet:
    """18 layers, basic blocks, 11.7 M parameters."""
    return build_model(SEWResNet, "sew_resnet18", {"layers": (2, 2, 2, 2)}, **kwargs)


@FAMILY.register(IMAGENET)
def sew_resnet34(**kwargs: Any) -> SEWResNet:
    """34 layers, 67.04 % on ImageNet-1k in the paper."""
    return build_model(SEWResNet, "sew_resnet34", {"layers": (3, 4, 6, 3)}, **kwargs)


@FAMILY.register(IMAGENET, small={"layers": (2, 1), "planes": (4, 8)})
def sew_resnet50(**kwargs: Any) -> SEWResNet:
    """50 layers, bottlenecks, 67.78 % on ImageNet-1k in the paper."""
    return build_model(SEWResNet, "sew_resnet50", {"layers": (3, 4, 6, 3), "block": "bottleneck"}, **kwargs)


@FAMILY.register(IMAGENET)
def sew_resnet101(**kwargs: Any) -> SEWResNet:
    """101 layers, bottlenecks, 68.76 % on ImageNet-1k in the paper."""
    return build_model(SEWResNet, "sew_resnet101", {"layers": (3, 4, 23, 3), "block": "bottleneck"}, **kwargs)


@FAMILY.register(IMAGENET)
def sew_resnet152(**kwargs: Any) -> SEWResNet:
    """152 layers, bottlenecks, 69.26 % on ImageNet-1k in the paper."""
    return build_model(SEWResNet, "sew_resnet152", {"layers": (3, 8, 36, 3), "block": "bottleneck"}, **kwargs)
