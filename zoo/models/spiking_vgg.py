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
from typing import TYPE_CHECKING, Any

from torch import nn

from spiking.layers import fold_time
from zoo.build import build_model
from zoo.classifier import SpikingModel
from zoo.layers import lmht
from zoo.layers.convolution import ConvNorm, conv3x3, init_convolutions, init_hidden_linear, neuron_factory
from zoo.registry import register_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.layers.convolution import MakeNeuron

NEURON_DEFAULTS: dict[str, Any] = {
    "tau": 2.0,
    "decay_input": False,
    "v_threshold": 1.0,
    "v_reset": 0.0,
    "surrogate": "rect",  # the paper names three shapes; this one has width and height 1
    "detach_reset": True,  # not stated in the paper; full gradients through a hard reset destabilise
}
INPUT_POWER = 0.1  # of the hidden layers: measured 0.06 behind the last pooling, 0.16 behind a neuron


class VGGStage(nn.ModuleList):
    """Convolution-norm, neuron and dropout, repeated; average pooling at the end.

    Args:
        c_in: C of the input.
        widths: C of each convolution.
        make_neuron: builds one neuron.
        drop_rate: of the dropout after each neuron.
        skip_first: leave the first convolution and norm to the model, which runs it once.
    """

    def __init__(
        self,
        c_in: int,
        widths: Sequence[int],
        make_neuron: MakeNeuron,
        drop_rate: float,
        skip_first: bool = False,
    ) -> None:
        super().__init__()
        for width in widths:
            self.append(ConvNorm(conv3x3(c_in, width, bias=True), nn.BatchNorm2d(width)))
            self.append(make_neuron())
            self.append(nn.Dropout(drop_rate))
            c_in = width
        # rounding up changes nothing for even maps and keeps a 1 x 1 map alive
        self.append(nn.AvgPool2d(2, ceil_mode=True))
        self.skip_first = skip_first

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[T, B, C', H / 2, W / 2]``."""
        for index, layer in enumerate(self):
            if index == 0 and self.skip_first:
                continue
            x = fold_time(layer, x) if isinstance(layer, nn.AvgPool2d) else layer(x)
        return x


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
        time_steps: int = 4,
        in_chans: int = 3,
        num_classes: int = 10,
        neuron: str = "lif",
        neuron_args: dict[str, Any] | None = None,
    ) -> None:
        if not plan or not all(plan):
            raise ValueError(f"plan needs at least one width in every stage, got {plan!r}")
        super().__init__(
            num_classes=num_classes, in_chans=in_chans, time_steps=time_steps, num_features=plan[-1][-1]
        )
        make = neuron_factory(neuron, neuron_args, NEURON_DEFAULTS, time_steps)
        self.pool_size = pool_size
        self.pool = nn.AdaptiveAvgPool2d(pool_size)
        self.stage_names = [f"layer{s + 1}" for s in range(len(plan))]
        c_in = in_chans
        for s, (name, widths) in enumerate(zip(self.stage_names, plan, strict=True)):
            self.add_module(name, VGGStage(c_in, widths, make, conv_drop_rate, skip_first=s == 0))
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
        linear = nn.Linear(self.head_hidden_size, num_classes)
        nn.init.zeros_(linear.bias)
        return linear

    def forward_stem(self, x: Tensor, repeats: int) -> Tensor:
        """First convolution and norm: ``[T', B, C, H, W]`` -> ``[T', B, C1, H, W]``."""
        stage = self.get_submodule(self.stage_names[0])
        assert isinstance(stage, VGGStage)
        return stage[0](x, repeats)  # type: ignore[no-any-return]

    def stages(self) -> Sequence[nn.Module]:
        """The stages; the first one starts behind the stem's norm."""
        return [self.get_submodule(name) for name in self.stage_names]

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

    Its directly trained networks have ours. Its hybrid ones keep a dropout behind every neuron's place and a
    flattening before the classifier in the count: ``layer1.{0,1,2}`` are convolution, norm and neuron.
    """
    if "layer1.1.0.running_mean" in state:
        state = {_from_hybrid(key): value for key, value in state.items()}
    return lmht.import_neurons(state, model)


def _from_hybrid(key: str) -> str:
    if found := re.fullmatch(r"layer(\d+)\.(\d+)\.(.+)", key):
        block, part = divmod(int(found[2]), 4)
        name = (f"{3 * block}.0", f"{3 * block}.1", f"{3 * block + 1}")[part]
        return f"layer{found[1]}.{name}.{found[3].removeprefix('0.')}"
    if found := re.fullmatch(r"classifier\.(\d+)\.(.+)", key):
        return f"classifier.{int(found[1]) - 1}.{found[2]}"
    return key


CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010), "crop_pct": 1.0}
NAMES = {"first_conv": "layer1.0.0", "classifier": "classifier.6.0", "interpolation": "bicubic"}
PAPER = "2401.04486"


def _create(name: str, variant: dict[str, Any], **kwargs: Any) -> SpikingVGG:
    return build_model(SpikingVGG, name, variant, **kwargs)


@register_model(paper=PAPER, input_size=(3, 32, 32), num_classes=10, cfg={**CIFAR10, **NAMES})
def spiking_vgg11(**kwargs: Any) -> SpikingVGG:
    """Eight convolutions."""
    plan = ((64,), (128,), (256, 256), (512, 512), (512, 512))
    return _create("spiking_vgg11", {"plan": plan}, **kwargs)


@register_model(paper="2402.00411", input_size=(3, 32, 32), num_classes=10, cfg={**CIFAR10, **NAMES})
def spiking_vgg13(**kwargs: Any) -> SpikingVGG:
    """Ten convolutions in the LM-HT work's own plan: three in stage 4, one in stage 5."""
    plan = ((64, 64), (128, 128), (256, 256), (512, 512, 512), (512,))
    return _create("spiking_vgg13", {"plan": plan}, **kwargs)


@register_model(paper=PAPER, input_size=(3, 32, 32), num_classes=10, cfg={**CIFAR10, **NAMES})
def spiking_vgg16(**kwargs: Any) -> SpikingVGG:
    """Thirteen convolutions; the plan of the QCFS line's VGG-16."""
    plan = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    return _create("spiking_vgg16", {"plan": plan}, **kwargs)


@register_model(
    paper=lmht.PAPER,
    input_size=(3, 32, 32),
    num_classes=10,
    cfg={**CIFAR10, **NAMES},
    checkpoint_filter_fn=lmht_filter_fn,
)
def lmht_vgg13(**kwargs: Any) -> SpikingVGG:
    """`spiking_vgg13` with LM-HT neurons; ``hidden=0`` is the authors' for Tiny-ImageNet."""
    plan = ((64, 64), (128, 128), (256, 256), (512, 512, 512), (512,))
    return _create("lmht_vgg13", {"plan": plan, **lmht.VARIANT}, **kwargs)


@register_model(
    paper=lmht.PAPER,
    input_size=(3, 32, 32),
    num_classes=10,
    cfg={**CIFAR10, **NAMES},
    checkpoint_filter_fn=lmht_filter_fn,
)
def lmht_vgg16(**kwargs: Any) -> SpikingVGG:
    """`spiking_vgg16` with LM-HT neurons; what hybrid training makes of `qcfs_vgg16`."""
    plan = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    return _create("lmht_vgg16", {"plan": plan, **lmht.VARIANT}, **kwargs)
