"""QCFS ResNet: the source of conversions to spiking networks, with a QCFS or ReLU activation.

The ResNets of QCFS (arXiv 2303.04347), SRP (2302.02091), COS (2302.10685) and Parallel Conversion
(2412.13610): basic blocks, a 3x3 stem of stride 1 and no max-pooling, at 224 x 224 pixels, too, where
ResNet-34 then costs 56.8 GMAC an image, fifteen times torchvision's. The two do not take each other's
weights.

Parallel Conversion's training-free case starts from torchvision's own ReLU ResNets instead: these are
``timm/resnet18.tv_in1k``, ``timm/resnet34.tv_in1k``, ``timm/resnet50.tv_in1k`` and
``timm/resnet101.tv_in1k``, whose modules carry torchvision's names.

Axes: B batch, C channels, H W map, K classes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from torch import nn

from spiking.qcfs import V_THRESHOLD_INIT, Order
from zoo.layers.convolution import conv1x1, conv3x3
from zoo.layers.preprocessing import CIFAR10_BY_IMAGE, IMAGENET
from zoo.layers.residual import add_stages, check_stages
from zoo.models._family import Family
from zoo.models._qcfs import PAPER, Activation, SourceNetwork, build_source, import_state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


class BasicBlock(nn.Module):
    """Convolution, norm, activation, convolution, norm, sum with the shortcut, activation.

    Args:
        c_in: C of the input.
        c_out: C of the output.
        stride: of the first convolution.
        make_activation: builds one activation.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, make_activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv1 = conv3x3(c_in, c_out, stride)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.act1 = make_activation()
        self.conv2 = conv3x3(c_out, c_out)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(conv1x1(c_in, c_out, stride), nn.BatchNorm2d(c_out))
        self.act2 = make_activation()

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` -> ``[B, C', H', W']``."""
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.act2(y + (x if self.downsample is None else self.downsample(x)))
        return out


class QCFSResNet(SourceNetwork):
    """ResNet without neurons, see the head of this file.

    Args:
        layers: blocks of each stage.
        planes: C of each stage.
        activation: ``"qcfs"`` or ``"relu"``.
        levels: L of QCFS.
        v_threshold: initial threshold of QCFS.
        order: see `spiking.qcfs.qcfs`.
        in_chans: C of the input.
        num_classes: K.
    """

    classifier_name = "fc"

    def __init__(
        self,
        layers: Sequence[int] = (2, 2, 2, 2),
        planes: Sequence[int] = (64, 128, 256, 512),
        activation: Activation = "qcfs",
        levels: int = 4,
        v_threshold: float = V_THRESHOLD_INIT,
        order: Order = "clip_first",
        in_chans: int = 3,
        num_classes: int = 10,
    ) -> None:
        check_stages(layers, planes)
        super().__init__(
            activation=activation,
            levels=levels,
            v_threshold=v_threshold,
            order=order,
            num_classes=num_classes,
            in_chans=in_chans,
            num_features=planes[-1],
        )
        width = planes[0]
        self.conv1 = conv3x3(in_chans, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = self.make_activation()
        self.feature_info = add_stages(
            self,
            lambda c_in, c_out, stride: BasicBlock(c_in, c_out, stride, self.make_activation),
            layers=layers,
            planes=planes,
            width=width,
        )
        self.fc = self.make_classifier(num_classes)

    def forward_stem(self, x: Tensor) -> Tensor:
        """Convolution, norm and activation: ``[B, C, H, W]`` -> ``[B, C1, H, W]``."""
        y: Tensor = self.act1(self.bn1(self.conv1(x)))
        return y


# the authors' names of a block's parts, and ours
PARTS = {
    "residual_function.0.": "conv1.",
    "residual_function.1.": "bn1.",
    "residual_function.2.up": "act1.v_threshold",
    "residual_function.2.thresh": "act1.v_threshold",
    "residual_function.3.": "conv2.",
    "residual_function.4.": "bn2.",
    "shortcut.": "downsample.",
    "relu.up": "act2.v_threshold",
    "relu.thresh": "act2.v_threshold",  # hzc1208/LMHT_SNN, whose hybrid training starts here
    "act.thresh": "act2.v_threshold",
}
STEM = {
    "conv1.0.": "conv1.",
    "conv1.1.": "bn1.",
    "conv1.2.up": "act1.v_threshold",
    "conv1.2.thresh": "act1.v_threshold",
}


def checkpoint_filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Names of the authors' four codes -> ours; their ``conv2_x`` is the first stage."""

    def rename(key: str) -> str:
        if found := re.fullmatch(r"conv(\d+)_x\.(\d+)\.(.+)", key):
            return f"layer{int(found[1]) - 1}.{found[2]}.{_replace(found[3], PARTS)}"
        return _replace(key, STEM)

    return import_state(state, model, rename)


def _replace(key: str, names: dict[str, str]) -> str:
    for theirs, ours in names.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


FAMILY = Family(
    paper=PAPER,
    first_conv="conv1",
    classifier="fc",
    interpolation="bilinear",
    checkpoint_filter_fn=checkpoint_filter_fn,
)


@FAMILY.register(CIFAR10_BY_IMAGE, small={"layers": (1, 1), "planes": (8, 16), "v_threshold": 2.0})
def qcfs_resnet18(**kwargs: Any) -> QCFSResNet:
    """18 layers, 17 activations."""
    return build_source(QCFSResNet, "qcfs_resnet18", {"layers": (2, 2, 2, 2)}, **kwargs)


@FAMILY.register(CIFAR10_BY_IMAGE, small={"layers": (2, 1), "planes": (8, 16), "activation": "relu"})
def qcfs_resnet20(**kwargs: Any) -> QCFSResNet:
    """20 narrow layers in three stages, 19 activations; shortcuts are 1x1 convolutions."""
    variant = {"layers": (3, 3, 3), "planes": (16, 32, 64), "levels": 8}
    return build_source(QCFSResNet, "qcfs_resnet20", variant, **kwargs)


@FAMILY.register(IMAGENET)
def qcfs_resnet34(**kwargs: Any) -> QCFSResNet:
    """34 layers, 33 activations; made for ImageNet, with the same stem of stride 1."""
    variant = {"layers": (3, 4, 6, 3), "levels": 8, "num_classes": 1000}
    return build_source(QCFSResNet, "qcfs_resnet34", variant, **kwargs)
