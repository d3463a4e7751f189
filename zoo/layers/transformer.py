"""Parts that the spiking transformers after Spikformer share: patch splitting, feed-forward parts, blocks.

Axes: T time, B batch, C channels, H W map, K classes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from torch import nn

from zoo.layers.attention import V_ATTENTION
from zoo.layers.convolution import conv3x3, conv_norm, conv_norm_fire, leaky_defaults, neuron_factory
from zoo.layers.head import StepLinear

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from zoo.layers.convolution import MakeNeuron

NEURON_DEFAULTS = leaky_defaults(surrogate="sigmoid")  # alpha = 4
INIT_STD = 0.02  # truncated normal for the classifier; convolutions keep PyTorch's initialisation


def make_neurons(
    neuron: str, neuron_args: Mapping[str, Any] | None, time_steps: int
) -> tuple[MakeNeuron, MakeNeuron]:
    """What builds one neuron, and what builds one behind an attention, whose threshold is 0.5.

    Args:
        neuron: name, see ``spiking.list_neurons``.
        neuron_args: arguments that win over `NEURON_DEFAULTS` and over the threshold.
        time_steps: T.
    """
    behind_attention = {**NEURON_DEFAULTS, "v_threshold": V_ATTENTION}
    return (
        neuron_factory(neuron, neuron_args, NEURON_DEFAULTS, time_steps),
        neuron_factory(neuron, neuron_args, behind_attention, time_steps),
    )


class Block(nn.Module):
    """``x + attn(x)``, then ``x + mlp(x)``.

    Args:
        attn: the attention.
        mlp: the feed-forward part.
    """

    def __init__(self, attn: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.attn, self.mlp = attn, mlp

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[T, B, C, H, W]``."""
        x = x + self.attn(x)
        y: Tensor = self.mlp(x)
        return x + y


class MLP(nn.Module):
    """Two times 1x1 convolution with bias, norm, neuron.

    Args:
        dim: C.
        hidden: channels in between.
        make_neuron: builds one neuron.
    """

    def __init__(self, dim: int, hidden: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.fc1_conv, self.fc1_bn = nn.Conv2d(dim, hidden, 1), nn.BatchNorm2d(hidden)
        self.fc1_lif = make_neuron()
        self.fc2_conv, self.fc2_bn = nn.Conv2d(hidden, dim, 1), nn.BatchNorm2d(dim)
        self.fc2_lif = make_neuron()

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> spikes ``[T, B, C, H, W]``."""
        x = conv_norm_fire(self.fc1_conv, self.fc1_bn, self.fc1_lif, x)
        return conv_norm_fire(self.fc2_conv, self.fc2_bn, self.fc2_lif, x)


class MembraneMLP(nn.Module):
    """Two times neuron, 1x1 convolution with bias, norm; without the shortcut.

    Args:
        dim: C.
        hidden: channels in between.
        make_neuron: builds one neuron.
    """

    def __init__(self, dim: int, hidden: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.fc1_lif = make_neuron()
        self.fc1_conv, self.fc1_bn = nn.Conv2d(dim, hidden, 1), nn.BatchNorm2d(hidden)
        self.fc2_lif = make_neuron()
        self.fc2_conv, self.fc2_bn = nn.Conv2d(hidden, dim, 1), nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Currents ``[T, B, C, H, W]`` -> currents ``[T, B, C, H, W]``."""
        x = conv_norm_fire(self.fc1_conv, self.fc1_bn, self.fc2_lif, self.fc1_lif(x))
        return conv_norm(self.fc2_conv, self.fc2_bn, x)


class PatchSplitting(nn.Module):
    """Layers of spiking patch splitting (SPS): four convolutions, and a fifth as a position code.

    Subclasses write `forward`, in which the authors differ.

    Args:
        in_chans: C of the input.
        dim: C of the patches; the convolutions have an eighth, a quarter, a half and all of it.
        pooling: one digit a convolution, ``"1"`` where a 3x3 max-pooling halves the map.
        make_neuron: builds one neuron.
    """

    def __init__(self, in_chans: int, dim: int, pooling: str, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.pooling = check_pooling(pooling)
        width = in_chans
        for i, out in enumerate((dim // 8, dim // 4, dim // 2, dim)):
            tail = str(i or "")  # the authors' names: proj_conv, proj_conv1, ...
            self.add_module(f"proj_conv{tail}", conv3x3(width, out))
            self.add_module(f"proj_bn{tail}", nn.BatchNorm2d(out))
            self.add_module(f"proj_lif{tail}", make_neuron())
            width = out
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.rpe_conv, self.rpe_bn = conv3x3(dim, dim), nn.BatchNorm2d(dim)

    def current(self, i: int, x: Tensor, repeats: int = 1) -> Tensor:
        """The i-th convolution and norm; ``repeats`` as in `zoo.layers.convolution.conv_norm`."""
        return conv_norm(*self._layers(i), x, repeats)

    def _layers(self, i: int) -> tuple[nn.Module, nn.Module]:
        return self.get_submodule(f"proj_conv{i or ''}"), self.get_submodule(f"proj_bn{i or ''}")

    def fire(self, i: int, x: Tensor) -> Tensor:
        """The i-th neuron: currents -> spikes, ``[T, B, C, H, W]``."""
        spikes: Tensor = self.get_submodule(f"proj_lif{i or ''}")(x)
        return spikes

    def spikes(self, i: int, x: Tensor) -> Tensor:
        """``fire(i, current(i, x))``."""
        return conv_norm_fire(*self._layers(i), self.get_submodule(f"proj_lif{i or ''}"), x)


def check_pooling(pooling: str) -> str:
    """The digits; the command line reads ``"1010"`` as a number.

    Raises:
        ValueError: they are not four zeros and ones.
    """
    digits = str(pooling)
    if not re.fullmatch("[01]{4}", digits):
        raise ValueError(f"pooling must be four digits 0 or 1, one a convolution, got {pooling!r}")
    return digits


def truncated_linear(features: int, num_classes: int, bias: bool = True) -> nn.Module:
    """Classifier: weights from a truncated normal of 0.02, bias 0; the identity for ``num_classes=0``."""
    if not num_classes:
        return nn.Identity()
    linear = StepLinear(features, num_classes, bias=bias)
    nn.init.trunc_normal_(linear.weight, std=INIT_STD)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


def as_conv_weight(key: str, value: Tensor) -> Tensor:
    """A weight ``[C', C]`` or ``[C', C, 1]`` of a pointwise layer as ``[C', C, 1, 1]``."""
    if re.search(r"_(conv|linear)\.weight$", key) and value.dim() in (2, 3):
        return value.reshape(*value.shape[:2], 1, 1)
    return value
