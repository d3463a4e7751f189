"""One call of the update rule of TD3, with a proxy or a moving average as the target actor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Batch(Protocol):
    """Transitions: see `datamodules.Transitions`."""

    @property
    def observation(self) -> Tensor:
        """``[B, D]``."""

    @property
    def action(self) -> Tensor:
        """``[B, A]``."""

    @property
    def next_observation(self) -> Tensor:
        """``[B, D]``."""

    @property
    def reward(self) -> Tensor:
        """``[B, 1]``."""

    @property
    def not_done(self) -> Tensor:
        """``[B, 1]``: 0 where the episode terminated."""


def at_least(low: int, **numbers: float) -> None:
    """Refuse what is smaller, by name.

    Raises:
        ValueError: a number is below ``low``, or NaN.
    """
    for name, value in numbers.items():
        if not value >= low:
            raise ValueError(f"{name} must be at least {low}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What takes part.

    Attributes:
        actor: the online actor.
        target_actor: its proxy, or its moving average.
        critics: both, giving two values.
        target_critics: their moving averages.
    """

    actor: nn.Module
    target_actor: nn.Module
    critics: Any
    target_critics: Any


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Numbers of the rule.

    Attributes:
        act_limit: L.
        proxy: whether the target actor imitates the online one, instead of following its weights.
        discount: gamma.
        tau: share by which moving averages move.
        policy_noise: standard deviation of the noise on target actions, in units of L.
        noise_clip: its largest amount, in units of L.
        policy_delay: calls between two steps of the actor.

    Raises:
        ValueError: a number is out of its range.
    """

    act_limit: float
    proxy: bool = True
    discount: float = 0.99
    tau: float = 0.005
    policy_noise: float = 0.2
    noise_clip: float = 0.5
    policy_delay: int = 2

    def __post_init__(self) -> None:
        """Refuse what is out of its range."""
        at_least(0, policy_noise=self.policy_noise, noise_clip=self.noise_clip)
        at_least(1, policy_delay=self.policy_delay)
        for name, share in (("discount", self.discount), ("tau", self.tau)):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {share!r}")


def update(
    networks: Networks,
    rule: Rule,
    batches: Sequence[Batch],
    noise: Tensor,
    optimizers: Mapping[str, Any],
    call: int,
) -> dict[str, Tensor]:
    """Learn from remembered steps: the call for one step in the environment (2505.24161, Algorithm 1).

    Args:
        networks: changed in place.
        rule: its numbers.
        batches: one for each imitation step of the proxy; the last one serves critics and actor.
        noise: standard normal, like the actions of the last batch ``[B, A]``.
        optimizers: ``actor``, ``critic`` and, with a proxy, ``proxy``; each has ``zero_grad`` and ``step``.
        call: its number, from 1.

    Returns:
        Losses by the name of what they train.
    """
    losses: dict[str, Tensor] = {}
    batch, acts = batches[-1], call % rule.policy_delay == 0
    action: Tensor | None = None
    if rule.proxy:
        for k, shown in enumerate(batches, 1):
            # nothing moves the actor before its own step: what it does in the last batch serves there, too
            with torch.set_grad_enabled(acts and k == len(batches)):
                action = networks.actor(shown.observation)
            made = networks.target_actor(shown.observation)
            losses["proxy"] = _step(optimizers["proxy"], mse_loss(made, action.detach()))
    target = _target(networks, rule, batch, noise)
    first, second = networks.critics(batch.observation, batch.action)
    losses["critic"] = _step(optimizers["critic"], mse_loss(first, target) + mse_loss(second, target))
    if acts:
        if action is None:
            action = networks.actor(batch.observation)
        value = networks.critics.q1(batch.observation, action)
        # the critic on the way needs no gradients of its own
        losses["actor"] = _step(optimizers["actor"], -value.mean(), [*networks.actor.parameters()])
        follow(networks.target_critics, networks.critics, rule.tau)
        if not rule.proxy:
            follow(networks.target_actor, networks.actor, rule.tau)
    return losses


@torch.no_grad()
def _target(networks: Networks, rule: Rule, batch: Batch, noise: Tensor) -> Tensor:
    """What both values should be, ``[B, 1]``."""
    limit = rule.act_limit
    most = rule.noise_clip * limit
    noise = (rule.policy_noise * limit * noise).clamp(-most, most)
    action = (networks.target_actor(batch.next_observation) + noise).clamp(-limit, limit)
    first, second = networks.target_critics(batch.next_observation, action)
    return batch.reward + batch.not_done * rule.discount * torch.minimum(first, second)


def _step(optimizer: Any, loss: Tensor, learns: list[nn.Parameter] | None = None) -> Tensor:
    optimizer.zero_grad()
    loss.backward(inputs=learns)
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def follow(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Move every parameter of ``target`` by the share ``tau`` towards that of ``online``."""
    targets: list[Tensor] = [*target.parameters()]
    onlines: list[Tensor] = [*online.parameters()]
    torch._foreach_lerp_(targets, onlines, tau)
