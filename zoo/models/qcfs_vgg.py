"""QCFS VGG: the source of conversions to spiking networks, with a QCFS or ReLU activation.

The VGG-16 of QCFS (arXiv 2303.04347), SRP (2302.02091), COS (2302.10685) and Parallel Conversion
(2412.13610): average pooling, as a neuron cannot take a maximum over spikes; convolutions with a bias; a
classifier of three linear layers. It differs from torchvision's vgg16_bn in its pooling and, at 32 x 32
pixels, in its classifier's width, so that their weights do not fit each other.

Axes: B batch, C channels, H W map, K classes.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from torch import nn

from spiking.qcfs import V_THRESHOLD_INIT, Order
from zoo.layers.convolution import conv3x3, init_convolutions
from zoo.layers.preprocessing import CIFAR10_BY_IMAGE
from zoo.models._family import Family
from zoo.models._qcfs import PAPER, Activation, SourceNetwork, build_source, import_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

PLAN_16 = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)


class QCFSVGG(SourceNetwork):
    """VGG without neurons, see the head of this file.

    Args:
        plan: widths of the convolutions of each stage.
        hidden: width of the two hidden linear layers; 0 leaves them out.
        pool_size: side of the map that enters the classifier; 1 at 32 x 32 pixels, 7 at 224 x 224.
            Other input sizes are pooled to it.
        bias: of convolutions and linear layers; ``False`` is the authors' ``VGG_nobias``.
        activation: ``"qcfs"`` or ``"relu"``.
        levels: L of QCFS.
        v_threshold: initial threshold of QCFS.
        order: see `spiking.qcfs.qcfs`.
        in_chans: C of the input.
        num_classes: K.
    """

    def __init__(
        self,
        plan: Sequence[Sequence[int]] = PLAN_16,
        hidden: int = 4096,
        pool_size: int = 1,
        bias: bool = True,
        activation: Activation = "qcfs",
        levels: int = 4,
        v_threshold: float = V_THRESHOLD_INIT,
        order: Order = "clip_first",
        in_chans: int = 3,
        num_classes: int = 10,
    ) -> None:
        if not plan or not all(plan):
            raise ValueError(f"plan needs at least one width in every stage, got {plan!r}")
        super().__init__(
            activation=activation,
            levels=levels,
            v_threshold=v_threshold,
            order=order,
            num_classes=num_classes,
            in_chans=in_chans,
            num_features=plan[-1][-1],
        )
        self.pool_size, self.bias = pool_size, bias
        c_in = in_chans
        for s, widths in enumerate(plan):
            stage = nn.Sequential()
            for width in widths:
                parts = {
                    "conv": conv3x3(c_in, width, bias=bias),
                    "bn": nn.BatchNorm2d(width),
                    "act": self.make_activation(),
                }
                stage.append(nn.Sequential(OrderedDict(parts)))
                c_in = width
            # rounding up changes nothing for even maps and keeps a 1 x 1 map alive
            stage.append(nn.AvgPool2d(2, ceil_mode=True))
            name = f"layer{s + 1}"
            self.add_module(name, stage)
            self.feature_info.append({"num_chs": c_in, "reduction": 2 ** (s + 1), "module": name})
        self.pool = nn.AdaptiveAvgPool2d(pool_size)
        flat = c_in * pool_size**2
        self.mlp = nn.Sequential()
        for width in (hidden, hidden) if hidden else ():
            self.mlp.append(nn.Linear(flat, width, bias=bias))
            self.mlp.append(self.make_activation())
            flat = width
        self.head_hidden_size = flat
        self.classifier = self.make_classifier(num_classes)
        init_convolutions(self)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear) and bias:
                nn.init.zeros_(layer.bias)

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Linear; its bias starts at zero."""
        if not num_classes:
            return nn.Identity()
        linear = nn.Linear(self.head_hidden_size, num_classes, bias=self.bias)
        if self.bias:
            nn.init.zeros_(linear.bias)
        return linear

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features ``[B, C, H, W]`` -> logits ``[B, K]``; with ``pre_logits`` the hidden activations."""
        if x.shape[-2:] != (self.pool_size, self.pool_size):
            x = self.pool(x)
        x = self.mlp(x.flatten(1))
        return x if pre_logits else self.classifier(x)


def checkpoint_filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Names of the authors' four codes -> ours.

    A stage of theirs counts convolution, norm, activation and dropout in one sequence, and so does the
    classifier, which begins with a flattening.
    """
    assert isinstance(model, QCFSVGG)
    hidden = sum(isinstance(layer, nn.Linear) for layer in model.mlp)

    def rename(key: str) -> str:
        if found := re.fullmatch(r"(layer\d+)\.(\d+)\.(\w+)", key):
            stage, index, field = found[1], int(found[2]), found[3]
            part = ("conv", "bn", "act", "drop")[index % 4]
            return f"{stage}.{index // 4}.{part}.{_threshold(field)}"
        if found := re.fullmatch(r"classifier\.(\d+)\.(\w+)", key):
            layer, offset = divmod(int(found[1]) - 1, 3)
            if layer == hidden and offset == 0:
                return f"classifier.{found[2]}"
            return f"mlp.{2 * layer + offset}.{_threshold(found[2])}"
        return key

    return import_state(state, model, rename)


def _threshold(field: str) -> str:
    return "v_threshold" if field in ("up", "thresh") else field


def _create(name: str, variant: dict[str, Any], **kwargs: Any) -> QCFSVGG:
    model = build_source(QCFSVGG, name, variant, **kwargs)
    if kwargs.get("pool_size") is not None:
        side = model.pool_size * 2 ** len(model.feature_info)  # where the last pooling has nothing to do
        cfg = {**model.default_cfg, "input_size": (model.in_chans, side, side)}
        model.default_cfg = model.pretrained_cfg = cfg
    return model


FAMILY = Family(
    paper=PAPER,
    first_conv="layer1.0.conv",
    classifier="classifier",
    checkpoint_filter_fn=checkpoint_filter_fn,
)


@FAMILY.register(CIFAR10_BY_IMAGE, small={"plan": ((8,), (8, 8), (16,)), "hidden": 64, "v_threshold": 2.0})
def qcfs_vgg16(**kwargs: Any) -> QCFSVGG:
    """Thirteen convolutions; ``pool_size=7, num_classes=1000, levels=16`` for ImageNet."""
    return _create("qcfs_vgg16", {"plan": PLAN_16}, **kwargs)
