"""Actors: a spiking one that codes numbers by populations of neurons, and an ordinary network.

Axes: T time, B batch, D numbers in an observation, A numbers in an action, P neurons for each number.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from spiking.layers import fold_time
from zoo.base import ZooModel
from zoo.build import build_model
from zoo.models.proxy_target.critics import perceptron
from zoo.models.proxy_target.neurons import NEURONS, encoder_neuron
from zoo.registry import register_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PAPER = "2505.24161"
P = 10
SIZES = {"obs_dim": 11, "act_dim": 1, "act_limit": 1.0}  # of InvertedDoublePendulum-v4


class Actor(ZooModel):
    """What all actors have: sizes, and a check of what they are given.

    Args:
        obs_dim: D.
        act_dim: A.
        act_limit: L: actions lie in [-L, L].

    Raises:
        ValueError: a size below 1, or a limit that is not positive.
    """

    recorded: ClassVar[tuple[str, ...]] = ("obs_dim", "act_dim", "act_limit")

    def __init__(self, obs_dim: int, act_dim: int, act_limit: float) -> None:
        super().__init__()
        for name, size in {"obs_dim": obs_dim, "act_dim": act_dim}.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if not act_limit > 0:
            raise ValueError(f"act_limit must be above 0, got {act_limit}")
        self.obs_dim, self.act_dim, self.act_limit = obs_dim, act_dim, float(act_limit)

    def configuration(self, cfg: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The entry's facts with the sizes of this agent."""
        own = {"obs_dim": self.obs_dim, "act_dim": self.act_dim, "act_limit": self.act_limit}
        return {**cfg, **own}

    def check(self, observations: Tensor) -> None:
        """Compare with ``[B, D]``.

        Raises:
            ValueError: says what was expected and what came.
        """
        if observations.dim() != 2 or observations.shape[1] != self.obs_dim:
            raise ValueError(
                f"observations must be [B, {self.obs_dim}] for an agent of obs_dim = {self.obs_dim}, got"
                f" {list(observations.shape)}"
            )


class PopulationEncoder(nn.Module):
    """Numbers in (-1, 1) to spikes of P neurons each, which prefer values of their own (2010.09635).

    Args:
        obs_dim: D.
    """

    def __init__(self, obs_dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.linspace(-1.0, 1.0, P).repeat(1, obs_dim, 1))
        self.std = nn.Parameter(torch.full((1, obs_dim, P), 0.05**0.5))
        self.neuron = encoder_neuron()

    def forward(self, x: Tensor, time_steps: int) -> Tensor:
        """``[B, D]`` -> spikes ``[T, B, D P]``."""
        drive = torch.exp(-0.5 * (x.unsqueeze(-1) - self.mean).square() / self.std.square()).flatten(1)
        spikes: Tensor = self.neuron(drive.expand(time_steps, *drive.shape))
        return spikes


class PopulationActor(Actor):
    """Spiking actor of 2505.24161 (Section 3, in the form of its code).

    ``tanh`` of the observation, a population of neurons for each number, spiking layers, P output neurons for
    each number of the action, of whose mean rate over T steps one weighted sum and ``tanh`` make the action.

    Args:
        obs_dim: D.
        act_dim: A.
        act_limit: L.
        hidden: widths of the hidden layers.
        neuron: ``lif``, ``clif``, ``dn`` or ``plif``.
        time_steps: T.

    Raises:
        ValueError: an unknown neuron, or a size below 1.
    """

    recorded: ClassVar[tuple[str, ...]] = (*Actor.recorded, "time_steps")
    takes_time_steps: ClassVar[bool] = True

    def __init__(
        self,
        obs_dim: int = 11,
        act_dim: int = 1,
        act_limit: float = 1.0,
        hidden: Sequence[int] = (256, 256),
        neuron: str = "lif",
        time_steps: int = 5,
    ) -> None:
        super().__init__(obs_dim, act_dim, act_limit)
        if neuron not in NEURONS:
            raise ValueError(f"unknown neuron {neuron!r}; an actor takes {', '.join(NEURONS)}")
        if time_steps < 1:
            raise ValueError(f"time_steps must be at least 1, got {time_steps}")
        self.time_steps = time_steps
        self.encoder = PopulationEncoder(obs_dim)
        sizes = (obs_dim * P, *hidden, act_dim * P)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.neurons = nn.ModuleList(NEURONS[neuron]() for _ in self.layers)
        self.decoder = nn.Conv1d(act_dim, act_dim, P, groups=act_dim)

    def rates(self, observations: Tensor) -> Tensor:
        """Observations ``[B, D]`` -> mean firing rates of the output neurons ``[B, A P]``."""
        self.check(observations)
        spikes = self.encoder(torch.tanh(observations), self.time_steps)
        for layer, neuron in zip(self.layers, self.neurons, strict=True):
            spikes = neuron(fold_time(layer, spikes))
        rates: Tensor = spikes.mean(0)
        return rates

    def forward(self, observations: Tensor) -> Tensor:
        """Observations ``[B, D]`` -> actions ``[B, A]`` in [-L, L].

        Raises:
            ValueError: observations of another size.
        """
        populations = self.rates(observations).view(-1, self.act_dim, P)
        actions: Tensor = torch.tanh(self.decoder(populations).squeeze(-1))
        return self.act_limit * actions


class AnalogActor(Actor):
    """ReLU network with ``L tanh`` at its end: TD3's actor (1802.09477), and the proxy of a spiking one.

    Args:
        obs_dim: D.
        act_dim: A.
        act_limit: L.
        hidden: widths of the hidden layers.
    """

    def __init__(
        self,
        obs_dim: int = 11,
        act_dim: int = 1,
        act_limit: float = 1.0,
        hidden: Sequence[int] = (256, 256),
    ) -> None:
        super().__init__(obs_dim, act_dim, act_limit)
        self.layers = perceptron(obs_dim, hidden, act_dim)

    def forward(self, observations: Tensor) -> Tensor:
        """Observations ``[B, D]`` -> actions ``[B, A]`` in [-L, L].

        Raises:
            ValueError: observations of another size.
        """
        self.check(observations)
        return self.act_limit * torch.tanh(self.layers(observations))


@register_model(task="control", paper=PAPER, cfg=SIZES, small={"hidden": (8, 8)})
def proxy_target_lif(**kwargs: Any) -> PopulationActor:
    """Spiking actor with leaky integrate-and-fire neurons, T = 5."""
    return build_model(PopulationActor, "proxy_target_lif", {"neuron": "lif"}, **kwargs)


@register_model(task="control", paper=PAPER, cfg=SIZES)
def proxy_target_clif(**kwargs: Any) -> PopulationActor:
    """Spiking actor with current-based LIF neurons, those of pop-SAN, T = 5."""
    return build_model(PopulationActor, "proxy_target_clif", {"neuron": "clif"}, **kwargs)


@register_model(task="control", paper=PAPER, cfg=SIZES)
def proxy_target_dn(**kwargs: Any) -> PopulationActor:
    """Spiking actor with dynamic neurons, those of MDC-SAN, T = 5."""
    return build_model(PopulationActor, "proxy_target_dn", {"neuron": "dn"}, **kwargs)


@register_model(task="control", paper=PAPER, cfg=SIZES)
def proxy_target_plif(**kwargs: Any) -> PopulationActor:
    """Spiking actor with LIF neurons whose leak is learnt, one for each layer, T = 5."""
    return build_model(PopulationActor, "proxy_target_plif", {"neuron": "plif"}, **kwargs)


@register_model(task="control", paper="1802.09477", cfg=SIZES)
def proxy_target_ann(**kwargs: Any) -> AnalogActor:
    """Actor of TD3, an ordinary network: the baseline, and a source of conversions."""
    return build_model(AnalogActor, "proxy_target_ann", {}, **kwargs)
