"""MS-ResNet: residual networks whose shortcuts carry membrane currents instead of spikes.

"Advancing Spiking Neural Networks towards Deep Residual Learning", arXiv 2112.08954; code
Ariande1/MS-ResNet. A block is ``BN(conv(LIF(BN(conv(LIF(x)))))) + shortcut(x)``, so the sums are
real-valued and every convolution but the stem's and the shortcuts' sees spikes. Norms are tdBN:
batch norm over time and batch whose gain starts at the threshold, 0.5, or at 0 where it ends a
block. All four stages halve the map; there is no max-pooling. Module names inside a block are those
of SpikingJelly (``conv1``, ``bn1``, ``downsample.0``); checkpoints of the authors' code are mapped.

The authors' neuron fires above the threshold, ours at it; for real-valued currents that is the same.

Axes: T time, B batch, C channels, H W map, K classes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from zoo.build import build_model
from zoo.classifier import SpikingModel
from zoo.layers.convolution import (
    conv1x1,
    conv3x3,
    conv_norm,
    conv_norm_fire,
    leaky_defaults,
    neuron_factory,
    stem_conv,
)
from zoo.layers.preprocessing import CIFAR10, IMAGENET
from zoo.layers.residual import add_stages, check_stages
from zoo.models._family import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.layers.convolution import MakeNeuron

V_THRESHOLD = 0.5
# u = u / 4 + x; the rectangle's height is 1, SpikingJelly's copy has 2
NEURON_DEFAULTS = leaky_defaults(surrogate="rect", tau=4 / 3, decay_input=False, v_threshold=V_THRESHOLD)


def time_norm(channels: int, gain: float = V_THRESHOLD) -> nn.BatchNorm2d:
    """Batch norm over T, B, H and W whose gain starts at ``gain`` (tdBN)."""
    norm = nn.BatchNorm2d(channels)
    nn.init.constant_(norm.weight, gain)
    return norm


def deep_stem(c_in: int, c_out: int) -> nn.Sequential:
    """Three 3x3 convolutions with bias, the first with stride 2."""
    rest = (conv3x3(c_out, c_out, bias=True) for _ in range(2))
    return nn.Sequential(conv3x3(c_in, c_out, 2, bias=True), *rest)


class MSBlock(nn.Module):
    """Neuron, convolution, norm, twice; plus the shortcut.

    Args:
        c_in: C of the input.
        c_out: C of the output.
        stride: of the first convolution.
        make_neuron: builds one neuron.
        pooled_shortcut: halve the shortcut by 2x2 average pooling before its 1x1 convolution
            (104 layers) instead of by the stride of that convolution.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, make_neuron: MakeNeuron, pooled_shortcut: bool = False
    ) -> None:
        super().__init__()
        self.sn1 = make_neuron()
        self.conv1, self.bn1 = conv3x3(c_in, c_out, stride), time_norm(c_out)
        self.sn2 = make_neuron()
        self.conv2, self.bn2 = conv3x3(c_out, c_out), time_norm(c_out, gain=0.0)
        self.pool: nn.Module | None = None
        self.downsample: nn.Sequential | None = None
        if stride != 1 or c_in != c_out:
            if pooled_shortcut and stride != 1:
                # rounds up like the strided convolution, so that odd maps fit; even ones are the same
                self.pool = nn.AvgPool2d(stride, ceil_mode=True)
                stride = 1
            self.downsample = nn.Sequential(conv1x1(c_in, c_out, stride), time_norm(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """Currents ``[T, B, C, H, W]`` -> currents ``[T, B, C', H', W']``."""
        y = conv_norm_fire(self.conv1, self.bn1, self.sn2, self.sn1(x))
        y = conv_norm(self.conv2, self.bn2, y)
        if self.downsample is None:
            return y + x
        conv, norm = self.downsample
        if self.pool is not None:
            x = self.pool(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return y + conv_norm(conv, norm, x)


class MSResNet(SpikingModel):
    """MS-ResNet, see the head of this file.

    Stage outputs are currents; the neuron behind the last stage belongs to the head.

    Args:
        layers: blocks of each stage.
        planes: C of each stage.
        stem: ``"7x7"`` (stride 2), ``"deep"`` (three 3x3 convolutions, the first with stride 2) or
            ``"3x3"`` (stride 1, the first stage without stride, too), for small images.
        pooled_shortcut: average pooling in the shortcuts, see `MSBlock`.
        drop_rate: of the dropout before the classifier, one mask for all steps.
        time_steps: T for still images.
        in_chans: C of the input.
        num_classes: K.
        neuron: name of the neuron, see ``spiking.list_neurons``.
        neuron_args: its arguments, over the paper's (tau 4/3, threshold 0.5, rectangle).
    """

    classifier_name = "fc"

    def __init__(
        self,
        layers: Sequence[int] = (2, 2, 2, 2),
        planes: Sequence[int] = (64, 128, 256, 512),
        stem: Literal["7x7", "deep", "3x3"] = "7x7",
        pooled_shortcut: bool = False,
        drop_rate: float = 0.0,
        time_steps: int = 6,
        in_chans: int = 3,
        num_classes: int = 1000,
        neuron: str = "lif",
        neuron_args: dict[str, Any] | None = None,
    ) -> None:
        if stem not in ("7x7", "deep", "3x3"):
            raise ValueError(f"stem must be '7x7', 'deep' or '3x3', got {stem!r}")
        check_stages(layers, planes)
        super().__init__(
            num_classes=num_classes, in_chans=in_chans, time_steps=time_steps, num_features=planes[-1]
        )
        make = neuron_factory(neuron, neuron_args, NEURON_DEFAULTS, time_steps)
        width = planes[0]
        self.conv1 = deep_stem(in_chans, width) if stem == "deep" else stem_conv(stem, in_chans, width)
        self.bn1 = time_norm(width)
        self.feature_info = add_stages(
            self,
            lambda c_in, c_out, stride: MSBlock(c_in, c_out, stride, make, pooled_shortcut),
            layers=layers,
            planes=planes,
            width=width,
            reduction=1 if stem == "3x3" else 2,
            first_stride=1 if stem == "3x3" else 2,
        )
        self.sn = make()
        self.head_drop = nn.Dropout(drop_rate)
        self.fc = self.make_classifier(num_classes)

    def forward_stem(self, x: Tensor, repeats: int) -> Tensor:
        """Convolution and norm, no neuron: ``[T', B, C, H, W]`` -> ``[T', B, C1, H / 2, W / 2]``."""
        return conv_norm(self.conv1, self.bn1, x, repeats)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Currents ``[T, B, C, H, W]`` -> spikes -> mean over the map -> logits ``[T, B, K]``."""
        x = self.sn(x).mean(dim=(-2, -1))
        if self.training and self.head_drop.p:
            # the authors drop behind the mean over T, which is one mask for all steps
            x = x * self.head_drop(torch.ones_like(x[:1]))
        return x if pre_logits else self.fc(x)


def checkpoint_filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Map the authors' keys to ours.

    Theirs: ``conv1.0`` (three of them in the 104-layer network), its norm ``conv1.1.bn`` or
    ``conv1.3.bn``; stages ``conv2_x`` to ``conv5_x`` with ``residual_function.{1,4}``
    convolutions, ``.{2,5}.bn`` norms and ``shortcut``, whose first place is a pooling in the
    104-layer network.
    """
    if not any(key.startswith("conv2_x.") for key in state):
        return state
    deep = "conv1.2.weight" in state
    renamed = {}
    for key, value in state.items():
        new = re.sub(r"^conv1\.\d\.bn\.", "bn1.", key)
        if not deep:
            new = new.replace("conv1.0.", "conv1.")
        found = re.match(r"^conv(\d)_x\.(\d+)\.(residual_function|shortcut)\.(\d)\.(?:bn\.)?(.*)$", new)
        if found:
            stage, block, part, place, rest = found.groups()
            if part == "shortcut":
                name = f"downsample.{int(place) - int(deep)}"
            else:
                name = {"1": "conv1", "2": "bn1", "4": "conv2", "5": "bn2"}.get(place, part)
            new = f"layer{int(stage) - 1}.{block}.{name}.{rest}"
        renamed[new] = value
    return renamed


FAMILY = Family(
    paper="2112.08954",
    first_conv="conv1",
    classifier="fc",
    interpolation="bilinear",
    checkpoint_filter_fn=checkpoint_filter_fn,
)
DEEP = replace(FAMILY, first_conv="conv1.0")


@FAMILY.register(IMAGENET, small={"layers": (1, 1), "planes": (8, 16)})
def ms_resnet18(**kwargs: Any) -> MSResNet:
    """18 layers, T = 6."""
    return build_model(MSResNet, "ms_resnet18", {"layers": (2, 2, 2, 2)}, **kwargs)


@FAMILY.register(IMAGENET)
def ms_resnet34(**kwargs: Any) -> MSResNet:
    """34 layers, T = 6."""
    return build_model(MSResNet, "ms_resnet34", {"layers": (3, 4, 6, 3)}, **kwargs)


@DEEP.register(IMAGENET, small={"layers": (2, 1), "planes": (8, 16), "drop_rate": 0.0})
def ms_resnet104(**kwargs: Any) -> MSResNet:
    """104 layers with a deep stem and pooled shortcuts, 77.4 M parameters."""
    variant = {
        "layers": (3, 8, 32, 8),
        "stem": "deep",
        "pooled_shortcut": True,
        "drop_rate": 0.2,
        "time_steps": 5,
    }
    return build_model(MSResNet, "ms_resnet104", variant, **kwargs)


@FAMILY.register(CIFAR10)
def ms_resnet_nano(**kwargs: Any) -> MSResNet:
    """A size of our own for colour images of 32 x 32, 0.56 M parameters; the surrogate is an arctangent."""
    variant = {
        "layers": (1, 1, 1, 1),
        "planes": (24, 48, 96, 160),
        "stem": "3x3",
        "time_steps": 4,
        "num_classes": 10,
        "neuron_args": {"surrogate": "atan"},
    }
    return build_model(MSResNet, "ms_resnet_nano", variant, **kwargs)
