"""A feed-forward spiking network with learnt delays, for spikes of sound (arXiv 2306.17670).

Layers of synapses with a delay each, batch norm and leaky neurons; a spike that comes early waits for a late
one, which is how sequences are told apart without recurrence. As in DCLS-Delays, with a linear readout whose
logits are averaged over time, and Gaussians of one width.

Axes: T time, B batch, C channels of the cochlea, H W map (1 x 1 for sound), K classes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from torch import nn
from typing_extensions import override

from spiking.layers import fold_time
from zoo.build import build_model
from zoo.classifier import SpikingModel
from zoo.layers.convolution import leaky_defaults, neuron_factory
from zoo.layers.delays import DelayedLinear
from zoo.layers.preprocessing import Inputs
from zoo.models._family import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.layers.convolution import MakeNeuron

NEURON_DEFAULTS = leaky_defaults(surrogate="atan", decay_input=False)


class DelayLevel(nn.Module):
    """Dropout, synapses with delays, norm, neuron.

    Args:
        c_in: C of the input.
        c_out: C of the output.
        taps: longest delay in steps, plus 1.
        drop_rate: of the dropout.
        make_neuron: builds one neuron.
    """

    def __init__(self, c_in: int, c_out: int, taps: int, drop_rate: float, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.drop = nn.Dropout(drop_rate)
        self.synapses = DelayedLinear(c_in, c_out, taps)
        self.norm = nn.BatchNorm2d(c_out)
        self.neuron = make_neuron()

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> spikes ``[T, B, C', H, W]``."""
        spikes: Tensor = self.neuron(fold_time(self.norm, self.synapses(self.drop(x))))
        return spikes


class DelaySNN(SpikingModel):
    """Spiking network with delays, see the head of this file.

    Args:
        channels: C of each layer.
        taps: longest delay in steps, plus 1.
        drop_rate: of the dropout between layers.
        time_steps: T for still inputs.
        in_chans: C of the input.
        num_classes: K.
        neuron: name of the neuron, see ``spiking.list_neurons``.
        neuron_args: its arguments (default: tau 2, threshold 1, hard reset, ATan, detached reset).
    """

    def __init__(
        self,
        channels: Sequence[int] = (256, 256),
        taps: int = 25,
        drop_rate: float = 0.4,
        time_steps: int = 100,
        in_chans: int = 140,
        num_classes: int = 20,
        neuron: str = "lif",
        neuron_args: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            num_classes=num_classes, in_chans=in_chans, time_steps=time_steps, num_features=channels[-1]
        )
        make = neuron_factory(neuron, neuron_args, NEURON_DEFAULTS, time_steps)
        self.stem = DelayedLinear(in_chans, channels[0], taps)
        self.norm = nn.BatchNorm2d(channels[0])
        self.levels = nn.ModuleList([make()])
        self.levels.extend(
            DelayLevel(c_in, c_out, taps, drop_rate, make) for c_in, c_out in pairwise(channels)
        )
        for i, c in enumerate(channels):
            self.feature_info.append({"num_chs": c, "reduction": 1, "module": f"levels.{i}"})
        self.head_drop = nn.Dropout(drop_rate)
        self.classifier = self.make_classifier(num_classes)

    @override
    def encode(self, x: Tensor) -> Tensor:
        """Check the input and run the stem on all steps: a still input is silent before the first."""
        self.check_input(x)
        return self.forward_stem(x if x.dim() == 5 else x.expand(self.time_steps, *x.shape), repeats=1)

    def forward_stem(self, x: Tensor, repeats: int) -> Tensor:
        """Synapses and norm: ``[T, B, C, H, W]`` -> ``[T, B, C1, H, W]``."""
        return fold_time(self.norm, self.stem(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features ``[T, B, C, H, W]`` -> mean over the map -> logits ``[T, B, K]``."""
        x = self.head_drop(x.mean(dim=(-2, -1)))
        return x if pre_logits else self.classifier(x)


def sound(channels: int, num_classes: int) -> Inputs:
    """Counts of the channels of a cochlea, which are not normalised."""
    return Inputs(
        input_size=(channels, 1, 1), num_classes=num_classes, mean=(0.0,) * channels, std=(1.0,) * channels
    )


FAMILY = Family(paper="2306.17670", first_conv="stem", classifier="classifier")


@FAMILY.register(sound(140, 20))
def delay_snn_shd(**kwargs: Any) -> DelaySNN:
    """Two layers of 256 on SHD's 700 channels summed by fives, delays of up to 240 ms in steps of 10 ms."""
    return build_model(DelaySNN, "delay_snn_shd", {}, **kwargs)


@FAMILY.register(sound(140, 35))
def delay_snn_ssc(**kwargs: Any) -> DelaySNN:
    """Three layers of 512 on SSC's 700 channels summed by fives, delays of up to 290 ms in steps of 10 ms."""
    arguments = {"channels": (512, 512, 512), "taps": 30, "num_classes": 35}
    return build_model(DelaySNN, "delay_snn_ssc", arguments, **kwargs)


@FAMILY.register(sound(70, 10), small={"channels": (8, 12), "taps": 3, "drop_rate": 0.0})
def delay_snn_nano(**kwargs: Any) -> DelaySNN:
    """0.03 M parameters for 70 channels in 50 steps of 20 ms; trains in a minute on a CPU."""
    arguments = {"channels": (64, 64), "taps": 12, "time_steps": 50, "drop_rate": 0.2}
    arguments |= {"in_chans": 70, "num_classes": 10}
    return build_model(DelaySNN, "delay_snn_nano", arguments, **kwargs)
