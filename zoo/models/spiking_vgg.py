"""Spiking VGG: plain stacks of convolution, norm and neuron, with average pooling in between.

Plans and module names follow the VGG networks that the LM-HT work trains directly (arXiv 2402.00411,
code hzc1208/LMHT_SNN) and that the QCFS line converts: five stages ``layer1`` to ``layer5``,
convolutions with a bias, a classifier of three linear layers with neurons between them. The neuron
is the plain LIF of "Take A Shortcut Back" (arXiv 2401.04486): ``u = u / 2 + x``, threshold 1, hard
reset; the ``lmht_`` entries have that of LM-HT.

Axes: T time, B batch, C channels, H W map, K classes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from spiking.layers import fold_time
from spiking.normed import watched
from zoo.build import build_model
from zoo.classifier import SpikingModel
from zoo.layers import lmht
from zoo.layers.convolution import (
    ConvNorm,
    conv3x3,
    init_convolutions,
    init_hidden_linear,
    leaky_defaults,
    neuron_factory,
)
from zoo.layers.head import StepLinear
from zoo.layers.preprocessing import CIFAR10_BY_IMAGE
from zoo.models._family import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.layers.convolution import MakeNeuron

NEURON_DEFAULTS = leaky_defaults(surrogate="rect", decay_input=False)  # as in spiking_resnet.py
POOLINGS: dict[str, type[nn.AvgPool2d] | type[nn.MaxPool2d]] = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}
INPUT_POWER = 0.1  # of the hidden layers: measured 0.06 behind the last pooling, 0.16 behind a neuron


def _does_nothing(drop: nn.Module) -> bool:
    """Whether a dropout passes on what it is given, and nobody looks on."""
    return type(drop) is nn.Dropout and not (drop.training and drop.p) and not watched(drop)


class VGGStage(nn.ModuleList):
    """Convolution-norm, neuron and dropout, repeated; pooling at the end.

    Args:
        c_in: C of the input.
        widths: C of each convolution.
        make_neuron: builds one neuron.
        drop_rate: of the dropout after each neuron.
        skip_first: leave the first convolution and norm to the model, which runs it once.
        pooling: ``"avg"`` or ``"max"``.
        norm: whether a batch norm follows each convolution.
    """

    def __init__(
        self,
        c_in: int,
        widths: Sequence[int],
        make_neuron: MakeNeuron,
        drop_rate: float,
        skip_first: bool = False,
        pooling: str = "avg",
        norm: bool = True,
    ) -> None:
        super().__init__()
        for width in widths:
            normed = nn.BatchNorm2d(width) if norm else nn.Identity()
            self.append(ConvNorm(conv3x3(c_in, width, bias=True), normed))
            self.append(make_neuron())
            self.append(nn.Dropout(drop_rate))
            c_in = width
        # rounding up changes nothing for even maps and keeps a 1 x 1 map alive
        self.append(POOLINGS[pooling](2, ceil_mode=True))
        self.skip_first = skip_first

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[T, B, C', H / 2, W / 2]``."""
        *layers, pool = self
        for i in range(0, len(layers), 3):
            conv, neuron, drop = layers[i : i + 3]
            # spikes are pooled where they arise if nothing happens to them on the way
            last = i + 3 == len(layers) and _does_nothing(drop)
            if i == 0 and self.skip_first:
                x = neuron(x)
            else:
                assert isinstance(conv, ConvNorm)
                if last:
                    return conv.fire(neuron, x, pool)
                x = conv.fire(neuron, x)
            x = drop(x)
        return fold_time(pool, x)


class SpikingVGG(SpikingModel):
    """Spiking VGG, see the head of this file.

    Stage outputs are taken after the pooling, so they are averages of spikes.

    Args:
        plan: widths of the convolutions of each stage.
        hidden: width of the two hidden linear layers; 0 leaves them out.
        pool_size: side of the map that enters the classifier; 1 at 32 x 32 pixels, 7 at 224 x 224.
            Other input sizes are pooled to it.
        drop_rate: of the dropout in the classifier.
        conv_drop_rate: of the dropout after each neuron of the stages.
        pooling: at the end of a stage, ``"avg"`` or ``"max"``.
        norm: whether a batch norm follows each convolution.
        time_steps: T for still images.
        in_chans: C of the input.
        num_classes: K.
        neuron: name of the neuron, see ``spiking.list_neurons``.
        neuron_args: its arguments, over the paper's.
    """

    def __init__(
        self,
        plan: Sequence[Sequence[int]] = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3),
        hidden: int = 4096,
        pool_size: int = 1,
        drop_rate: float = 0.0,
        conv_drop_rate: float = 0.0,
        pooling: Literal["avg", "max"] = "avg",
        norm: bool = True,
        time_steps: int = 4,
        in_chans: int = 3,
        num_classes: int = 10,
        neuron: str = "lif",
        neuron_args: dict[str, Any] | None = None,
    ) -> None:
        if not plan or not all(plan):
            raise ValueError(f"plan needs at least one width in every stage, got {plan!r}")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
        super().__init__(
            num_classes=num_classes, in_chans=in_chans, time_steps=time_steps, num_features=plan[-1][-1]
        )
        make = neuron_factory(neuron, neuron_args, NEURON_DEFAULTS, time_steps)
        self.pool_size = pool_size
        self.pool = nn.AdaptiveAvgPool2d(pool_size)
        c_in = in_chans
        for s, widths in enumerate(plan):
            name = f"layer{s + 1}"
            stage = VGGStage(
                c_in, widths, make, conv_drop_rate, skip_first=s == 0, pooling=pooling, norm=norm
            )
            self.add_module(name, stage)
            c_in = widths[-1]
            self.feature_info.append({"num_chs": c_in, "reduction": 2 ** (s + 1), "module": name})

        flat = c_in * pool_size**2
        self.head_hidden_size = hidden or flat
        self.classifier = nn.Sequential()
        for width in (hidden, hidden) if hidden else ():
            self.classifier.append(nn.Sequential(nn.Linear(flat, width)))  # a level more, as upstream
            self.classifier.append(make())
            self.classifier.append(nn.Dropout(drop_rate))
            flat = width
        self.classifier_name = f"classifier.{len(self.classifier)}.0"
        self.classifier.append(nn.Sequential(self.make_classifier(num_classes)))
        init_convolutions(self)
        for module in self.classifier[:-1].modules():
            if isinstance(module, nn.Linear):
                init_hidden_linear(module, power=INPUT_POWER)

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Linear with a bias that starts at zero."""
        if not num_classes:
            return nn.Identity()
        linear = StepLinear(self.head_hidden_size, num_classes)
        nn.init.zeros_(linear.bias)
        return linear

    def forward_stem(self, x: Tensor, repeats: int) -> Tensor:
        """First convolution and norm: ``[T', B, C, H, W]`` -> ``[T', B, C1, H, W]``."""
        stage = self.get_submodule("layer1")
        assert isinstance(stage, VGGStage)
        y: Tensor = stage[0](x, repeats)
        return y

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features ``[T, B, C, H, W]`` -> logits ``[T, B, K]``; with ``pre_logits`` the hidden spikes."""
        if x.shape[-2:] != (self.pool_size, self.pool_size):
            x = fold_time(self.pool, x)
        x = x.flatten(2)
        for layer in self.classifier[:-1]:
            x = layer(x)
        return x if pre_logits else self.classifier[-1](x)


def lmht_filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Keys of LMHT_SNN -> ours.

    Its directly trained networks have ours, except that a classifier of one layer is a level higher. Its
    hybrid ones keep a dropout behind every neuron's place and a flattening before the classifier in the
    count: ``layer1.{0,1,2}`` are convolution, norm and neuron.
    """
    if "layer1.1.0.running_mean" in state:
        state = {_from_hybrid(key): value for key, value in state.items()}
    state = {re.sub(r"^(classifier\.\d+)\.(weight|bias)$", r"\1.0.\2", k): v for k, v in state.items()}
    return lmht.import_neurons(state, model)


def _from_hybrid(key: str) -> str:
    if found := re.fullmatch(r"layer(\d+)\.(\d+)\.(.+)", key):
        block, part = divmod(int(found[2]), 4)
        name = (f"{3 * block}.0", f"{3 * block}.1", f"{3 * block + 1}")[part]
        return f"layer{found[1]}.{name}.{found[3].removeprefix('0.')}"
    if found := re.fullmatch(r"classifier\.(\d+)\.(.+)", key):
        return f"classifier.{int(found[1]) - 1}.{found[2]}"
    return key


PLAN_13 = ((64, 64), (128, 128), (256, 256), (512, 512, 512), (512,))
PLAN_NANO = ((24,), (48, 64), (96, 128), (256,))
PLAN_16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
FAMILY = Family(paper="2401.04486", first_conv="layer1.0.0", classifier="classifier.6.0")
LMHT_PLAN = replace(FAMILY, paper=lmht.PAPER)
LMHT_FAMILY = replace(LMHT_PLAN, checkpoint_filter_fn=lmht_filter_fn)
LMHT_NANO = replace(LMHT_FAMILY, classifier="classifier.0.0")  # no hidden layers before it


@FAMILY.register(CIFAR10_BY_IMAGE, small={"plan": ((8,), (8, 8), (16,)), "hidden": 64})
def spiking_vgg11(**kwargs: Any) -> SpikingVGG:
    """Eight convolutions."""
    plan = ((64,), (128,), (256, 256), (512, 512), (512, 512))
    return build_model(SpikingVGG, "spiking_vgg11", {"plan": plan}, **kwargs)


@LMHT_PLAN.register(CIFAR10_BY_IMAGE)
def spiking_vgg13(**kwargs: Any) -> SpikingVGG:
    """Ten convolutions in the LM-HT work's own plan: three in stage 4, one in stage 5."""
    return build_model(SpikingVGG, "spiking_vgg13", {"plan": PLAN_13}, **kwargs)


@FAMILY.register(CIFAR10_BY_IMAGE)
def spiking_vgg16(**kwargs: Any) -> SpikingVGG:
    """Thirteen convolutions; the plan of the QCFS line's VGG-16."""
    return build_model(SpikingVGG, "spiking_vgg16", {"plan": PLAN_16}, **kwargs)


@LMHT_FAMILY.register(CIFAR10_BY_IMAGE)
def lmht_vgg13(**kwargs: Any) -> SpikingVGG:
    """`spiking_vgg13` with LM-HT neurons; ``hidden=0`` is the authors' for Tiny-ImageNet."""
    return build_model(SpikingVGG, "lmht_vgg13", {"plan": PLAN_13, **lmht.VARIANT}, **kwargs)


@LMHT_FAMILY.register(CIFAR10_BY_IMAGE)
def lmht_vgg16(**kwargs: Any) -> SpikingVGG:
    """`spiking_vgg16` with LM-HT neurons; what hybrid training makes of `qcfs_vgg16`."""
    return build_model(SpikingVGG, "lmht_vgg16", {"plan": PLAN_16, **lmht.VARIANT}, **kwargs)


@LMHT_NANO.register(CIFAR10_BY_IMAGE)
def lmht_vgg_nano(**kwargs: Any) -> SpikingVGG:
    """A size of our own for images of 32 x 32, 0.5 M parameters, without hidden layers in the classifier."""
    variant = {"plan": PLAN_NANO, "hidden": 0, "pool_size": 1, **lmht.VARIANT}
    return build_model(SpikingVGG, "lmht_vgg_nano", variant, **kwargs)
