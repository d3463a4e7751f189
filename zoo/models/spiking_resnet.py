"""Spiking ResNet: the basic-block network with a neuron in the place of every ReLU.

These are the networks that shortcut back-propagation ("Take A Shortcut Back", NeurIPS 2024, arXiv
2401.04486) and LM-HT (NeurIPS 2024, arXiv 2402.00411, code hzc1208/LMHT_SNN) train. A neuron takes the sum of
each block, so every stage ends in spikes; in the ``ms_`` form of LM-HT neurons precede the convolutions
instead, and stages end in currents. Module names are those of LMHT_SNN (``layer1.0.conv1.0`` convolution,
``layer1.0.conv1.1`` norm, ``fc.0`` classifier). The neuron is the plain LIF of the shortcut paper,
``u = u / 2 + x``, threshold 1, hard reset; the ``lmht_`` entries have LM-HT's.

Axes: T time, B batch, C channels, H W map, K classes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from spiking import LMHT
from spiking.layers import fold_time
from zoo.build import build_model
from zoo.classifier import SpikingModel
from zoo.layers import lmht
from zoo.layers.convolution import (
    ConvNorm,
    conv1x1,
    conv3x3,
    conv_norm,
    conv_norm_fire,
    init_convolutions,
    init_hidden_linear,
    leaky_defaults,
    neuron_factory,
    stem_conv,
)
from zoo.layers.head import StepLinear
from zoo.layers.preprocessing import CIFAR10_BY_IMAGE, IMAGENET
from zoo.layers.residual import add_stages, check_stages
from zoo.models._family import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.layers.convolution import MakeNeuron

# Of the rectangle, width and height 1: the paper names three shapes. It does not state that the reset is
# detached; full gradients through a hard reset destabilise.
NEURON_DEFAULTS = leaky_defaults(surrogate="rect", decay_input=False)
INPUT_POWER = 0.05  # of the hidden layer: the square of the mean rate behind the last stage, 0.22


class BasicBlock(nn.Module):
    """Convolution-norm, neuron, convolution-norm, sum with the shortcut, neuron.

    Args:
        c_in: C of the input.
        c_out: C of the output.
        stride: of the first convolution.
        make_neuron: builds one neuron.
        preactivation: put each neuron before its convolution, so that currents are summed.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, make_neuron: MakeNeuron, preactivation: bool = False
    ) -> None:
        super().__init__()
        self.preactivation = preactivation
        self.conv1 = ConvNorm(conv3x3(c_in, c_out, stride), nn.BatchNorm2d(c_out))
        self.sn1 = make_neuron()
        self.conv2 = ConvNorm(conv3x3(c_out, c_out), nn.BatchNorm2d(c_out))
        self.downsample: nn.Sequential | None = None
        if stride != 1 or c_in != c_out:  # a level more than needed, as upstream
            shortcut = ConvNorm(conv1x1(c_in, c_out, stride), nn.BatchNorm2d(c_out))
            self.downsample = nn.Sequential(shortcut)
        self.sn2 = make_neuron()

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> spikes, or currents, ``[T, B, C', H', W']``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        if self.preactivation:
            out: Tensor = self.conv2(self.conv1.fire(self.sn2, self.sn1(x))) + shortcut
        else:
            out = self.sn2(self.conv2(self.conv1.fire(self.sn1, x)) + shortcut)
        return out


class SpikingResNet(SpikingModel):
    """Spiking ResNet, see the head of this file.

    Args:
        layers: blocks of each stage.
        planes: C of each stage.
        stem_width: C behind the stem; default: that of the first stage.
        stem: ``"3x3"`` (H) or ``"7x7"`` (stride 2, neuron, max-pool: H / 4).
        first_stage: number in the name of the first stage; 2 for the 19-layer network, whose
            ``layer1`` is empty.
        hidden: width of a linear layer with a neuron before the classifier; 0 leaves it out.
        preactivation: neurons before the convolutions of a block instead of behind them, none behind the
            stem and none before the head, as LM-HT has its MS-ResNets; see `MSResNet` for the original.
        first_stride: of the first stage; LM-HT's 19-layer network has 2 there for events.
        dvs_mode: how LM-HT takes frames of events, see `zoo.layers.lmht.first_neuron`; default: one a step.
        dvs_frames: frames of ``dvs_mode="rect_tgim"``.
        time_steps: T for still images.
        in_chans: C of the input.
        num_classes: K.
        neuron: name of the neuron, see ``spiking.list_neurons``.
        neuron_args: its arguments, over the paper's.
    """

    def __init__(
        self,
        layers: Sequence[int] = (2, 2, 2, 2),
        planes: Sequence[int] = (64, 128, 256, 512),
        stem_width: int | None = None,
        stem: Literal["3x3", "7x7"] = "3x3",
        first_stage: int = 1,
        hidden: int = 0,
        preactivation: bool = False,
        first_stride: int = 1,
        dvs_mode: lmht.DvsMode | None = None,
        dvs_frames: int = 10,
        time_steps: int = 4,
        in_chans: int = 3,
        num_classes: int = 10,
        neuron: str = "lif",
        neuron_args: dict[str, Any] | None = None,
    ) -> None:
        if stem not in ("7x7", "3x3"):
            raise ValueError(f"stem must be '3x3' or '7x7', got {stem!r}")
        check_stages(layers, planes)
        super().__init__(
            num_classes=num_classes, in_chans=in_chans, time_steps=time_steps, num_features=planes[-1]
        )
        make = neuron_factory(neuron, neuron_args, NEURON_DEFAULTS, time_steps)
        width = stem_width or planes[0]
        self.conv1, self.bn1 = stem_conv(stem, in_chans, width), nn.BatchNorm2d(width)
        first = lmht.first_neuron(dvs_mode, dvs_frames, neuron, preactivation)
        make_first = neuron_factory(neuron, {**(neuron_args or {}), **first}, NEURON_DEFAULTS, time_steps)
        self.sn1 = None if preactivation else make_first()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "7x7" else None
        self.feature_info = add_stages(
            self,
            lambda c_in, c_out, stride: BasicBlock(c_in, c_out, stride, make, preactivation),
            layers=layers,
            planes=planes,
            width=width,
            reduction=4 if stem == "7x7" else 1,
            first_stride=first_stride,
            first_stage=first_stage,
        )
        if dvs_mode == "mean_frame":
            self.mean_frame = True
            next(m for m in self.modules() if isinstance(m, LMHT)).input_scale.fill_(time_steps)
        self.add_head(hidden, num_classes, make)
        init_convolutions(self)
        for module in self.fc[:-1].modules():
            if isinstance(module, nn.Linear):
                init_hidden_linear(module, power=INPUT_POWER)

    def add_head(self, hidden: int, num_classes: int, make_neuron: MakeNeuron) -> None:
        """Make the classifier, behind a linear layer with its neuron if ``hidden`` is not 0."""
        self.head_hidden_size = hidden or self.num_features
        self.fc = nn.Sequential()
        if hidden:
            self.fc.extend([nn.Sequential(nn.Linear(self.num_features, hidden)), make_neuron()])
        self.classifier_name = "fc.2.0" if hidden else "fc.0"
        last = self.make_classifier(num_classes)
        self.fc.append(nn.Sequential(last) if hidden else last)

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Linear with a bias."""
        return StepLinear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def forward_stem(self, x: Tensor, repeats: int) -> Tensor:
        """Of a stem without a neuron: convolution, norm and pooling, ``[T', B, C1, H', W']``."""
        x = conv_norm(self.conv1, self.bn1, x, repeats)
        return x if self.maxpool is None else fold_time(self.maxpool, x)

    def encode(self, x: Tensor) -> Tensor:
        """Spikes behind the stem, pooled, or currents: ``[T, B, C1, H', W']``."""
        if self.sn1 is None:
            return super().encode(x)
        x, repeats = self.unrolled(x)
        x = conv_norm_fire(self.conv1, self.bn1, self.sn1, x, repeats)
        return x if self.maxpool is None else fold_time(self.maxpool, x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features ``[T, B, C, H, W]`` -> mean over the map -> logits ``[T, B, K]``."""
        x = x.mean(dim=(-2, -1))
        for layer in self.fc[:-1]:
            x = layer(x)
        return x if pre_logits else self.fc[-1](x)


# the hybrid networks of LMHT_SNN name a block's parts by their places
HYBRID = {
    "residual_function.0.0.": "conv1.0.",
    "residual_function.1.0.": "conv1.1.",
    "residual_function.2.": "sn1.",
    "residual_function.3.0.": "conv2.0.",
    "residual_function.4.0.": "conv2.1.",
    "relu.": "sn2.",
    "shortcut.0.0.": "downsample.0.0.",
    "shortcut.1.0.": "downsample.0.1.",
    "conv1.0.0.": "conv1.",
    "conv1.1.0.": "bn1.",
    "conv1.2.": "sn1.",
}


def lmht_filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Keys of LMHT_SNN -> ours; its ``ms_`` networks carry a neuron behind the stem that never runs."""
    if any(key.startswith("conv2_x.") for key in state):
        state = {_from_hybrid(key): value for key, value in state.items()}
    if "bn1.0.weight" in state:  # their networks for events have a level more in the stem
        state = {re.sub(r"^(conv1|bn1)\.0\.", r"\1.", key): value for key, value in state.items()}
    if isinstance(model, SpikingResNet) and model.sn1 is None:
        state = {key: value for key, value in state.items() if not key.startswith("sn1.")}
    return lmht.import_neurons(state, model)


def _from_hybrid(key: str) -> str:
    found = re.fullmatch(r"conv(\d+)_x\.(\d+)\.(.+)", key)
    stage, rest = (f"layer{int(found[1]) - 1}.{found[2]}.", found[3]) if found else ("", key)
    for theirs, ours in HYBRID.items():
        if rest.startswith(theirs):
            return stage + ours + rest.removeprefix(theirs)
    return key


FAMILY = Family(paper="2401.04486", first_conv="conv1", classifier="fc.0", interpolation="bilinear")
HIDDEN = replace(FAMILY, classifier="fc.2.0")
LMHT_FAMILY = replace(FAMILY, paper=lmht.PAPER, checkpoint_filter_fn=lmht_filter_fn)
LMHT_HIDDEN = replace(LMHT_FAMILY, classifier="fc.2.0")
RESNET19: dict[str, Any] = {
    "layers": (3, 3, 2),
    "planes": (128, 256, 512),
    "stem_width": 64,
    "first_stage": 2,
    "hidden": 256,
}


@FAMILY.register(CIFAR10_BY_IMAGE, small={"layers": (1, 1), "planes": (8, 16)})
def spiking_resnet18(**kwargs: Any) -> SpikingResNet:
    """18 layers with a 3x3 stem, for 32 x 32 images."""
    return build_model(SpikingResNet, "spiking_resnet18", {"layers": (2, 2, 2, 2)}, **kwargs)


@HIDDEN.register(CIFAR10_BY_IMAGE, small={"layers": (1, 1), "planes": (8, 16), "hidden": 64})
def spiking_resnet19(**kwargs: Any) -> SpikingResNet:
    """19 layers in three wide stages, a hidden linear layer with a neuron before the classifier."""
    return build_model(SpikingResNet, "spiking_resnet19", RESNET19, **kwargs)


@FAMILY.register(IMAGENET, small={"layers": (2, 1), "planes": (8, 16)})
def spiking_resnet34(**kwargs: Any) -> SpikingResNet:
    """34 layers with a 7x7 stem; ``stem="3x3"`` for small images."""
    variant = {"layers": (3, 4, 6, 3), "stem": "7x7", "num_classes": 1000}
    return build_model(SpikingResNet, "spiking_resnet34", variant, **kwargs)


@LMHT_FAMILY.register(CIFAR10_BY_IMAGE)
def lmht_resnet18(**kwargs: Any) -> SpikingResNet:
    """18 layers with LM-HT neurons."""
    return build_model(SpikingResNet, "lmht_resnet18", {"layers": (2, 2, 2, 2), **lmht.VARIANT}, **kwargs)


@LMHT_HIDDEN.register(CIFAR10_BY_IMAGE)
def lmht_resnet19(**kwargs: Any) -> SpikingResNet:
    """`spiking_resnet19` with LM-HT neurons."""
    return build_model(SpikingResNet, "lmht_resnet19", {**RESNET19, **lmht.VARIANT}, **kwargs)


@LMHT_FAMILY.register(CIFAR10_BY_IMAGE)
def lmht_resnet20(**kwargs: Any) -> SpikingResNet:
    """20 narrow layers in three stages; what hybrid training makes of `qcfs_resnet20`."""
    variant = {"layers": (3, 3, 3), "planes": (16, 32, 64), **lmht.VARIANT}
    return build_model(SpikingResNet, "lmht_resnet20", variant, **kwargs)


@LMHT_FAMILY.register(IMAGENET)
def lmht_resnet34(**kwargs: Any) -> SpikingResNet:
    """34 layers with a 7x7 stem; ``stem="3x3"`` for small images, and for what becomes of `qcfs_resnet34`."""
    variant = {"layers": (3, 4, 6, 3), "stem": "7x7", "num_classes": 1000, **lmht.VARIANT}
    return build_model(SpikingResNet, "lmht_resnet34", variant, **kwargs)


@LMHT_FAMILY.register(CIFAR10_BY_IMAGE)
def lmht_ms_resnet18(**kwargs: Any) -> SpikingResNet:
    """18 layers, neurons before the convolutions."""
    variant = {"layers": (2, 2, 2, 2), "preactivation": True, **lmht.VARIANT}
    return build_model(SpikingResNet, "lmht_ms_resnet18", variant, **kwargs)


@LMHT_FAMILY.register(IMAGENET)
def lmht_ms_resnet34(**kwargs: Any) -> SpikingResNet:
    """34 layers with a 7x7 stem, neurons before the convolutions."""
    variant = {"layers": (3, 4, 6, 3), "stem": "7x7", "num_classes": 1000, "preactivation": True}
    return build_model(SpikingResNet, "lmht_ms_resnet34", {**variant, **lmht.VARIANT}, **kwargs)
