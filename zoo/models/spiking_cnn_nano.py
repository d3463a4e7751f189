"""A spiking convolutional network small enough to ship with the package and to train on a CPU.

A design of this project: four levels of convolution, norm and neuron with average pooling between
them. The stem runs once for a still image, and the maps halve at every level, so that most of the
work is done on small ones.

Axes: T time, B batch, C channels, H W map, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from spiking.layers import fold_time
from zoo.build import build_model
from zoo.classifier import SpikingModel
from zoo.layers.convolution import ConvNorm, conv3x3, init_convolutions, leaky_defaults, neuron_factory
from zoo.layers.head import StepLinear
from zoo.layers.preprocessing import GREY_DIGITS
from zoo.models._family import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.layers.convolution import MakeNeuron

NEURON_DEFAULTS = leaky_defaults(surrogate="atan", decay_input=False)


class Level(nn.Module):
    """Average pooling, convolution, norm, neuron: the map halves, the output is spikes.

    Args:
        c_in: C of the input.
        c_out: C of the output.
        make_neuron: builds one neuron.
    """

    def __init__(self, c_in: int, c_out: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2, ceil_mode=True)  # rounds up, so that a 1 x 1 map passes
        self.conv = ConvNorm(conv3x3(c_in, c_out), nn.BatchNorm2d(c_out))
        self.neuron = make_neuron()

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[T, B, C', H / 2, W / 2]``."""
        return self.conv.fire(self.neuron, fold_time(self.pool, x))


class SpikingCNN(SpikingModel):
    """Small spiking CNN, see the head of this file.

    Args:
        channels: C of each level.
        pool_size: side of the map that enters the classifier; 4 is what 25 to 32 pixels leave behind
            three halvings, and other sizes are pooled to it.
        drop_rate: of the dropout before the classifier.
        time_steps: T for still images.
        in_chans: C of the input.
        num_classes: K.
        neuron: name of the neuron, see ``spiking.list_neurons``.
        neuron_args: its arguments (default: tau 2, threshold 1, hard reset, ATan, detached reset).
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64, 128),
        pool_size: int = 4,
        drop_rate: float = 0.0,
        time_steps: int = 4,
        in_chans: int = 1,
        num_classes: int = 10,
        neuron: str = "lif",
        neuron_args: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            num_classes=num_classes, in_chans=in_chans, time_steps=time_steps, num_features=channels[-1]
        )
        make = neuron_factory(neuron, neuron_args, NEURON_DEFAULTS, time_steps)
        self.stem = ConvNorm(conv3x3(in_chans, channels[0]), nn.BatchNorm2d(channels[0]))
        self.levels = nn.ModuleList([make()])
        self.feature_info.append({"num_chs": channels[0], "reduction": 1, "module": "levels.0"})
        for i in range(1, len(channels)):
            self.levels.append(Level(channels[i - 1], channels[i], make))
            info = {"num_chs": channels[i], "reduction": 2**i, "module": f"levels.{i}"}
            self.feature_info.append(info)
        self.head_hidden_size = channels[-1] * pool_size**2
        self.pool = nn.AdaptiveAvgPool2d(pool_size)
        self.head_drop = nn.Dropout(drop_rate)
        self.classifier = self.make_classifier(num_classes)
        init_convolutions(self)

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Linear with a bias."""
        return StepLinear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def forward_stem(self, x: Tensor, repeats: int) -> Tensor:
        """Convolution and norm: ``[T', B, C, H, W]`` -> ``[T', B, C1, H, W]``."""
        y: Tensor = self.stem(x, repeats)
        return y

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features ``[T, B, C, H, W]`` -> ``[T, B, C * pool_size^2]`` -> logits ``[T, B, K]``."""
        x = fold_time(self.pool, x).flatten(2)
        x = self.head_drop(x)
        return x if pre_logits else self.classifier(x)


FAMILY = Family(first_conv="stem.0", classifier="classifier")


@FAMILY.register(GREY_DIGITS, small={"channels": (8, 8, 16)})
def spiking_cnn_nano(**kwargs: Any) -> SpikingCNN:
    """0.12 M parameters for grey digits of 28 x 28; trains in a minute or two on a CPU."""
    return build_model(SpikingCNN, "spiking_cnn_nano", {}, **kwargs)
