"""Spiking ResNet: the basic-block network with a neuron in the place of every ReLU.

These are the networks that shortcut back-propagation ("Take A Shortcut Back", NeurIPS 2024, arXiv
2401.04486) and LM-HT (NeurIPS 2024, arXiv 2402.00411, code hzc1208/LMHT_SNN) train. A neuron stands
behind the sum of each block, so every stage hands on binary spikes. Module names are those of
LMHT_SNN (``layer1.0.conv1.0`` convolution, ``layer1.0.conv1.1`` norm, ``fc.0`` classifier); the
neuron is the plain LIF of the shortcut paper: ``u = u / 2 + x``, threshold 1, hard reset.

Axes: T time, B batch, C channels, H W map, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from spiking.layers import fold_time
from zoo._base import SpikingModel
from zoo._blocks import (
    ConvNorm,
    conv1x1,
    conv3x3,
    conv_norm,
    init_convolutions,
    init_hidden_linear,
    neuron_factory,
)
from zoo._build import build_model
from zoo._registry import register_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo._blocks import MakeNeuron

NEURON_DEFAULTS: dict[str, Any] = {
    "tau": 2.0,
    "decay_input": False,
    "v_threshold": 1.0,
    "v_reset": 0.0,
    "surrogate": "rect",  # the paper names three shapes; this one has width and height 1
    "detach_reset": True,  # not stated in the paper; full gradients through a hard reset destabilise
}
INPUT_POWER = 0.05  # of the hidden layer: the square of the mean rate behind the last stage, 0.22


class BasicBlock(nn.Module):
    """Convolution-norm, neuron, convolution-norm, sum with the shortcut, neuron.

    Args:
        c_in: C of the input.
        c_out: C of the output.
        stride: of the first convolution.
        make_neuron: builds one neuron.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.conv1 = ConvNorm(conv3x3(c_in, c_out, stride), nn.BatchNorm2d(c_out))
        self.sn1 = make_neuron()
        self.conv2 = ConvNorm(conv3x3(c_out, c_out), nn.BatchNorm2d(c_out))
        self.downsample: nn.Sequential | None = None
        if stride != 1 or c_in != c_out:  # a level more than needed, as upstream
            shortcut = ConvNorm(conv1x1(c_in, c_out, stride), nn.BatchNorm2d(c_out))
            self.downsample = nn.Sequential(shortcut)
        self.sn2 = make_neuron()

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> spikes ``[T, B, C', H', W']``."""
        y = self.conv2(self.sn1(self.conv1(x)))
        return self.sn2(y + (x if self.downsample is None else self.downsample(x)))  # type: ignore[no-any-return]


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
        time_steps: int = 4,
        in_chans: int = 3,
        num_classes: int = 10,
        neuron: str = "lif",
        neuron_args: dict[str, Any] | None = None,
    ) -> None:
        if stem not in ("7x7", "3x3"):
            raise ValueError(f"stem must be '3x3' or '7x7', got {stem!r}")
        if len(layers) != len(planes):
            raise ValueError(
                f"layers and planes need one number a stage each, got {list(layers)}, {list(planes)}"
            )
        super().__init__(
            num_classes=num_classes, in_chans=in_chans, time_steps=time_steps, num_features=planes[-1]
        )
        make = neuron_factory(neuron, neuron_args, NEURON_DEFAULTS, time_steps)
        large = stem == "7x7"
        width = stem_width or planes[0]
        self.conv1 = (
            nn.Conv2d(in_chans, width, 7, 2, padding=3, bias=False) if large else conv3x3(in_chans, width)
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.sn1 = make()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if large else None
        reduction = 4 if large else 1
        self.stage_names = [f"layer{s + first_stage}" for s in range(len(layers))]
        for s, (name, depth, plane) in enumerate(zip(self.stage_names, layers, planes, strict=True)):
            stride = 1 if s == 0 else 2
            stage = nn.Sequential()
            for i in range(depth):
                stage.append(BasicBlock(width, plane, stride if i == 0 else 1, make))
                width = plane
            self.add_module(name, stage)
            reduction *= stride
            self.feature_info.append({"num_chs": plane, "reduction": reduction, "module": name})

        self.head_hidden_size = hidden or width
        self.fc = nn.Sequential()
        if hidden:
            self.fc.extend([nn.Sequential(nn.Linear(width, hidden)), make()])
        self.classifier_name = "fc.2.0" if hidden else "fc.0"
        last = self.make_classifier(num_classes)
        self.fc.append(nn.Sequential(last) if hidden else last)
        init_convolutions(self)
        for module in self.fc[:-1].modules():
            if isinstance(module, nn.Linear):
                init_hidden_linear(module, power=INPUT_POWER)

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Linear with a bias."""
        return nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def forward_stem(self, x: Tensor, repeats: int) -> Tensor:
        """Convolution and norm: ``[T', B, C, H, W]`` -> ``[T', B, C1, H', W']``."""
        return conv_norm(self.conv1, self.bn1, x, repeats)

    def encode(self, x: Tensor) -> Tensor:
        """Spikes behind the stem, pooled: ``[T, B, C1, H', W']``."""
        x = self.sn1(super().encode(x))
        return x if self.maxpool is None else fold_time(self.maxpool, x)

    def stages(self) -> Sequence[nn.Module]:
        """The residual stages; each hands on spikes."""
        return [self.get_submodule(name) for name in self.stage_names]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features ``[T, B, C, H, W]`` -> mean over the map -> logits ``[T, B, K]``."""
        x = x.mean(dim=(-2, -1))
        for layer in self.fc[:-1]:
            x = layer(x)
        return x if pre_logits else self.fc[-1](x)


CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010), "crop_pct": 1.0}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "crop_pct": 0.875}
NAMES = {"first_conv": "conv1", "classifier": "fc.0", "interpolation": "bilinear"}
NAMES_19 = {**NAMES, "classifier": "fc.2.0"}
PAPER = "2401.04486"


def _create(name: str, variant: dict[str, Any], **kwargs: Any) -> SpikingResNet:
    return build_model(SpikingResNet, name, variant, **kwargs)


@register_model(paper=PAPER, input_size=(3, 32, 32), num_classes=10, cfg={**CIFAR10, **NAMES})
def spiking_resnet18(**kwargs: Any) -> SpikingResNet:
    """18 layers with a 3x3 stem, for 32 x 32 images."""
    return _create("spiking_resnet18", {"layers": (2, 2, 2, 2)}, **kwargs)


@register_model(paper=PAPER, input_size=(3, 32, 32), num_classes=10, cfg={**CIFAR10, **NAMES_19})
def spiking_resnet19(**kwargs: Any) -> SpikingResNet:
    """19 layers in three wide stages, a hidden linear layer with a neuron before the classifier."""
    variant = {
        "layers": (3, 3, 2),
        "planes": (128, 256, 512),
        "stem_width": 64,
        "first_stage": 2,
        "hidden": 256,
    }
    return _create("spiking_resnet19", variant, **kwargs)


@register_model(paper=PAPER, cfg={**IMAGENET, **NAMES})
def spiking_resnet34(**kwargs: Any) -> SpikingResNet:
    """34 layers with a 7x7 stem; ``stem="3x3"`` for small images."""
    variant = {"layers": (3, 4, 6, 3), "stem": "7x7", "num_classes": 1000}
    return _create("spiking_resnet34", variant, **kwargs)
