"""The project behind the contracts of outside benchmark and probe scripts.

Each factory builds what such a script asks for from the public API alone, so that a measurement meets what
users get: `make_lif` (a multi-step neuron), `make_vgg` (a small spiking network), `make_net` (a tiny network
for yes/no probes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spiking import LIF, encode
from spiking.normed import norm_fire
from spiking.surrogate import ATan

if TYPE_CHECKING:
    from collections.abc import Callable

# Decay 0.5, threshold 1, soft detached reset, arc tangent: a neuron that every library has.
COMMON = {"tau": 2.0, "decay_input": False, "v_reset": None, "detach_reset": True, "surrogate": ATan(2.0)}


def make_lif() -> LIF:
    """A LIF layer, ``[T, ...]`` -> spikes ``[T, ...]``."""
    return LIF(**COMMON)  # type: ignore[arg-type]


class SmallVGG(nn.Module):
    """Four times convolution, norm, neuron; three poolings; a linear head.

    The image is the same at every step, so the first convolution and norm run once; all maps are
    channels-last.

    Args:
        seed: holds ``convs``, ``bns`` and ``fc``, which are taken over.
        neuron: makes a layer ``[T, B, ...]`` -> ``[T, B, ...]``.
    """

    def __init__(self, seed: Any, neuron: Callable[[], nn.Module] | None = None) -> None:
        super().__init__()
        self.convs, self.bns, self.fc = seed.convs, seed.bns, seed.fc
        self.neurons = nn.ModuleList((neuron or make_lif)() for _ in self.convs)
        self.pools = (None, *(nn.AvgPool2d(2) for _ in self.convs[1:]))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, t: int) -> Tensor:
        """Images ``[B, 3, H, W]`` and T -> logits ``[B, K]``, the mean over T."""
        x = x.to(memory_format=torch.channels_last)
        layers = zip(self.convs, self.bns, self.neurons, self.pools, strict=True)
        for i, (conv, norm, neuron, pool) in enumerate(layers):
            steps = conv(x).unflatten(0, (t if i else 1, -1))
            x = self.fire(norm, neuron, steps, 1 if i else t, pool).flatten(0, 1)
        return self.fc(x.flatten(1)).unflatten(0, (t, -1)).mean(0)

    def fire(
        self, norm: nn.Module, neuron: nn.Module, x: Tensor, repeats: int, pool: nn.Module | None
    ) -> Tensor:
        """What follows a convolution: ``[T', B, C, H, W]`` -> ``[T, B, C, H', W']``."""
        return norm_fire(norm, neuron, x, repeats, pool)


def make_vgg(seed: Any) -> nn.Module:
    """The network of `training_step.py` with the weights of ``seed``."""
    return SmallVGG(seed)


class Tiny(nn.Module):
    """Convolution, norm, neuron, linear: ``[B, 1, 8, 8]`` -> ``[B, 10]`` over four steps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(512, 10)
        self.neuron = LIF()

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[B, 1, 8, 8]`` -> logits ``[B, 10]``."""
        current = self.norm(self.conv(x))
        return self.fc(self.neuron(encode.direct(current, 4)).flatten(2)).mean(0)


def make_net() -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor], None]:
    """A network, how to call it, and how to reset it: there is nothing to reset."""
    return Tiny(), lambda net, x: net(x), None
