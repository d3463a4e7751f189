"""The twin critics of TD3, ordinary networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence


def perceptron(size: int, hidden: Sequence[int], out: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(size, width), nn.ReLU()]
        size = width
    return nn.Sequential(*layers, nn.Linear(size, out))


class TwinCritics(nn.Module):
    """Two estimates of the value of an action (1802.09477).

    Args:
        obs_dim: D.
        act_dim: A.
        hidden: widths of both.
    """

    def __init__(self, obs_dim: int, act_dim: int, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        self.first = perceptron(obs_dim + act_dim, hidden, 1)
        self.second = perceptron(obs_dim + act_dim, hidden, 1)

    def forward(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, D]`` and ``[B, A]`` -> both values, ``[B, 1]``."""
        x = torch.cat([observations, actions], dim=1)
        return self.first(x), self.second(x)

    def q1(self, observations: Tensor, actions: Tensor) -> Tensor:
        """The first value alone, which the actor climbs."""
        value: Tensor = self.first(torch.cat([observations, actions], dim=1))
        return value
