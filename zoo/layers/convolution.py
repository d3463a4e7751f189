"""Parts that the convolutional families share: neurons by name, convolution with norm, stems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

import spiking
from spiking.layers import fold_time, norm_repeated
from spiking.neurons import find_neuron
from spiking.normed import norm_fire_folded, watched
from spiking.own import accepted_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    MakeNeuron = Callable[[], nn.Module]


def neuron_factory(
    neuron: str,
    neuron_args: Mapping[str, Any] | None,
    defaults: Mapping[str, Any],
    time_steps: int,
) -> MakeNeuron:
    """A function that builds one neuron a call.

    Args:
        neuron: name, see ``spiking.list_neurons``.
        neuron_args: arguments that win over ``defaults``.
        defaults: the family's settings; those that this neuron does not know, or derives from its other
            arguments (LM-HT's threshold), are left out.
        time_steps: T, for neurons whose parameters have a time axis (PSN, GLIF).
    """
    cls = find_neuron(neuron)
    family = {**defaults, "init_tau": defaults.get("tau", 2.0), "time_steps": time_steps}
    accepted = accepted_arguments(cls)
    settings = {k: v for k, v in family.items() if k in accepted and accepted[k].default is not None}
    settings.update(neuron_args or {})
    return lambda: spiking.get_neuron(neuron, **settings)


def leaky_defaults(
    *, surrogate: str, tau: float = 2.0, decay_input: bool = True, v_threshold: float = 1.0
) -> dict[str, Any]:
    """A family's settings for `neuron_factory`: hard reset to 0, and a reset that carries no gradient.

    Args:
        surrogate: name of the surrogate gradient, with its default slope.
        tau: time constant of the membrane, in time steps.
        decay_input: whether the input is divided by ``tau`` as well.
        v_threshold: firing threshold.
    """
    return {
        "tau": tau,
        "decay_input": decay_input,
        "v_threshold": v_threshold,
        "v_reset": 0.0,
        "surrogate": surrogate,
        "detach_reset": True,
    }


def conv3x3(c_in: int, c_out: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """Convolution that keeps the map, or divides it by its stride (rounded up)."""
    return nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=bias)


def conv1x1(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    """Pointwise convolution without bias."""
    return nn.Conv2d(c_in, c_out, 1, stride, bias=False)


def stem_conv(stem: str, c_in: int, c_out: int) -> nn.Conv2d:
    """First convolution of a ResNet: ``"7x7"`` with stride 2, or ``"3x3"``, which keeps the map."""
    if stem == "7x7":
        return nn.Conv2d(c_in, c_out, 7, 2, padding=3, bias=False)
    return conv3x3(c_in, c_out)


def conv_norm(conv: nn.Module, norm: nn.Module, x: Tensor, repeats: int = 1) -> Tensor:
    """``norm(conv(x))`` on the folded ``[T * B, ...]``; ``[T, B, C, H, W]`` -> ``[T, B, C', H', W']``.

    Plain ``nn.BatchNorm2d`` modules keep the authors' flat key names, and ``SyncBatchNorm`` can take
    their place.

    Args:
        conv: one convolution or several in a row.
        norm: batch norm over T, B, H and W.
        x: the input.
        repeats: how many equal steps ``x`` represents; see `spiking.layers.norm_repeated`.
    """
    y = norm_repeated(norm, conv(x.flatten(0, 1)), repeats)
    return y.reshape(*x.shape[:2], *y.shape[1:])


def conv_norm_fire(
    conv: nn.Module,
    norm: nn.Module,
    neuron: nn.Module,
    x: Tensor,
    repeats: int = 1,
    pool: nn.Module | None = None,
) -> Tensor:
    """``pool(neuron(conv_norm(conv, norm, x)))``, the three in one pass; as `spiking.normed.norm_fire`.

    Args:
        conv: as in `conv_norm`.
        norm: as in `conv_norm`.
        neuron: takes its output.
        x: the input ``[T', B, C, H, W]``.
        repeats: how many equal steps a single one stands for; the spikes have as many.
        pool: takes the spikes of all steps, ``[N, C, H, W]``; or nothing.
    """
    return norm_fire_folded(norm, neuron, conv(x.flatten(0, 1)), x.shape[0], repeats, pool)


class ConvNorm(nn.Sequential):
    """Convolution (key ``0``) and batch norm (key ``1``) on ``[T, B, C, H, W]``."""

    def __init__(self, conv: nn.Module, norm: nn.Module) -> None:
        super().__init__(conv, norm)

    def forward(self, x: Tensor, repeats: int = 1) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[T, B, C', H', W']``; ``repeats`` as in `conv_norm`."""
        return conv_norm(self[0], self[1], x, repeats)

    def fire(self, neuron: nn.Module, x: Tensor, pool: nn.Module | None = None) -> Tensor:
        """Spikes of a neuron behind: ``[T, B, C, H, W]`` -> ``[T, B, C', H', W']``, as `conv_norm_fire`."""
        if watched(self):
            spikes: Tensor = neuron(self(x))
            return spikes if pool is None else fold_time(pool, spikes)
        return conv_norm_fire(self[0], self[1], neuron, x, pool=pool)


def init_convolutions(model: nn.Module) -> None:
    """He initialisation over the outputs, as ResNet codes have it; norms stay at 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def init_hidden_linear(layer: nn.Linear, power: float) -> None:
    """Let the neurons behind a linear layer without norm fire from the start.

    Currents get the spread of a threshold of 1. The usual initialisations are made for inputs of mean
    square 1; with sparse spikes they leave such neurons silent, and their surrogate gradients zero.

    Args:
        layer: the layer.
        power: mean square of its inputs at the start.
    """
    nn.init.normal_(layer.weight, std=(layer.in_features * power) ** -0.5)
    nn.init.zeros_(layer.bias)
