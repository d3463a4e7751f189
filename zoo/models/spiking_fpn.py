"""A spiking network for segmentation: any spiking classifier of the zoo with a pyramid of features behind it.

The maps of all stages go through a convolution each to a common width and are added from the smallest to the
largest, as in feature pyramids (arXiv 1612.03144) and their use for segmentation (arXiv 1901.02446), with
neurons at every level, so that every convolution but the encoder's first sees spikes. One convolution of
1 x 1 makes logits of every pixel. The size and the rest are a design of this project.

Axes: T time, B batch, C channels, H W map, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from typing_extensions import override

from spiking.layers import fold_time
from zoo.build import build_model
from zoo.classifier import SpikingModel
from zoo.layers.convolution import (
    ConvNorm,
    conv1x1,
    conv3x3,
    init_convolutions,
    leaky_defaults,
    neuron_factory,
)
from zoo.layers.preprocessing import GREY_DIGITS
from zoo.registry import get_entry, is_registered, register_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.layers.convolution import MakeNeuron

NEURON_DEFAULTS = leaky_defaults(surrogate="atan", decay_input=False)


class Merge(nn.Module):
    """One level of the pyramid: the currents of this stage, and of the level below in its size, make spikes.

    Args:
        c_in: C of the stage.
        width: C of the pyramid.
        make_neuron: builds one neuron.
        last: whether no level lies below.
    """

    def __init__(self, c_in: int, width: int, make_neuron: MakeNeuron, last: bool) -> None:
        super().__init__()
        self.lateral = ConvNorm(conv1x1(c_in, width), nn.BatchNorm2d(width))
        self.down = None if last else ConvNorm(conv3x3(width, width), nn.BatchNorm2d(width))
        self.neuron = make_neuron()

    def forward(self, stage: Tensor, below: Tensor | None) -> Tensor:
        """``[T, B, C, H, W]`` and ``[T, B, width, H', W']`` -> spikes ``[T, B, width, H, W]``."""
        y: Tensor = self.lateral(stage)
        if self.down is not None and below is not None:
            y = y + _resized(self.down(below), y.shape[-2:])
        spikes: Tensor = self.neuron(y)
        return spikes


class SpikingFPN(SpikingModel):
    """Spiking segmentation network, see the head of this file.

    Args:
        encoder: name of a spiking classifier of the zoo whose stages have maps ``[T, B, C, H, W]``.
        encoder_args: its arguments.
        width: C of the pyramid.
        time_steps: T for still images.
        in_chans: C of the input.
        num_classes: K.
        neuron: name of the pyramid's neuron, see ``spiking.list_neurons``.
        neuron_args: its arguments (default: tau 2, threshold 1, hard reset, ATan, detached reset).

    Raises:
        ValueError: the encoder is no such network.
    """

    def __init__(
        self,
        encoder: str = "spiking_cnn_nano",
        encoder_args: dict[str, Any] | None = None,
        width: int = 32,
        time_steps: int = 4,
        in_chans: int = 1,
        num_classes: int = 4,
        neuron: str = "lif",
        neuron_args: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            num_classes=num_classes, in_chans=in_chans, time_steps=time_steps, num_features=width
        )
        built = _encoder(encoder, encoder_args or {}, time_steps, in_chans)
        make = neuron_factory(neuron, neuron_args, NEURON_DEFAULTS, time_steps)
        self.encoder = built
        channels = [info["num_chs"] for info in built.feature_info]
        self.feature_info = [{**info, "module": f"encoder.{info['module']}"} for info in built.feature_info]
        self.levels = nn.ModuleList(
            Merge(c, width, make, last=k == len(channels) - 1) for k, c in enumerate(channels)
        )
        self.classifier = self.make_classifier(num_classes)
        init_convolutions(self.levels)

    @override
    def make_classifier(self, num_classes: int) -> nn.Module:
        return nn.Conv2d(self.num_features, num_classes, 1) if num_classes else nn.Identity()

    @override
    def encode(self, x: Tensor) -> Tensor:
        return self.encoder.encode(x)

    def pyramid(self, stages: Sequence[Tensor]) -> Tensor:
        """Maps of the stages ``[T, B, C, H, W]``, the largest first -> spikes ``[T, B, width, H, W]``."""
        below: Tensor | None = None
        for level, stage in zip(reversed(self.levels), reversed(stages), strict=True):
            below = level(stage, below)
        assert below is not None
        return below

    @override
    def forward_features(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` or ``[T, B, C, H, W]`` -> spikes of the pyramid ``[T, B, width, H', W']``."""
        found = self.forward_intermediates(x, intermediates_only=True)
        assert isinstance(found, list)
        return self.pyramid(found)

    @override
    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Spikes ``[T, B, width, H, W]`` -> logits of every place ``[T, B, K, H, W]``."""
        return x if pre_logits else fold_time(self.get_classifier(), x)

    @override
    def forward(self, x: Tensor, *, steps: bool = False) -> Tensor:
        """Logits of every pixel: their mean over T, ``[B, K, H, W]``, or all, ``[T, B, K, H, W]``."""
        logits = _resized(self.forward_head(self.forward_features(x)), x.shape[-2:])
        return logits if steps else logits.mean(dim=0)


def _encoder(name: str, arguments: dict[str, Any], time_steps: int, in_chans: int) -> SpikingModel:
    expected = f"encoder must be a spiking classifier of the zoo with stages, got {name!r}"
    if not is_registered(name) or ":" in name or get_entry(name).task != "classification":
        raise ValueError(expected)
    try:
        built = get_entry(name).fn(num_classes=0, time_steps=time_steps, in_chans=in_chans, **arguments)
    except TypeError as error:
        raise ValueError(f"{expected}: {error}") from error
    if not isinstance(built, SpikingModel) or not built.feature_info:
        raise ValueError(expected)
    return built


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """``[T, B, C, H', W']`` -> ``[T, B, C, H, W]`` by the nearest neighbour, which keeps events rare."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return fold_time(lambda maps: nn.functional.interpolate(maps, size=tuple(size), mode="nearest"), x)


@register_model(
    task="segmentation",
    paper="1901.02446",
    input_size=(1, 32, 32),
    num_classes=4,
    cfg={
        **GREY_DIGITS.statistics(),
        "first_conv": "encoder.stem.0",
        "classifier": "classifier",
        "interpolation": "bicubic",
    },
    small={"encoder_args": {"channels": (8, 8, 16)}, "width": 8},
)
def spiking_fpn_nano(**kwargs: Any) -> SpikingFPN:
    """0.06 M parameters for grey images; trains in a minute or two on a CPU."""
    variant = {"encoder": "spiking_cnn_nano", "encoder_args": {"channels": (16, 32, 64)}}
    return build_model(SpikingFPN, "spiking_fpn_nano", variant, **kwargs)
