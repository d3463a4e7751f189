"""Milliseconds of one training call of an agent at full size, and of its actor alone.

    python benchmarks/control.py [--rounds 30] [--neurons lif clif dn plif] [--threads 1]

Shapes of InvertedDoublePendulum-v4: 11 numbers in, one action, hidden layers of 256, batch 256, T = 5, and a
proxy of 512-512 with K = 3. Beside our actors run the LIF equations as a plain PyTorch loop over T, once in
our training call and once in a textbook one (`plain_call`, torch's default Adam); and as the floor an ANN of
the same layers on T times as many states. All take turns in every round; see `_timing` for what is reported.
In brackets: ratio to plain PyTorch.
"""

from __future__ import annotations

import argparse
import copy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from _timing import arguments, environment, measure, milliseconds, ratio, table
from torch.nn.functional import mse_loss

import zoo
from lightning_modules.td3 import Networks, Rule, follow, update
from zoo.models.proxy_target import AnalogActor, TwinCritics
from zoo.models.proxy_target.critics import perceptron

if TYPE_CHECKING:
    from collections.abc import Callable

D, A, B, T, K = 11, 1, 256, 5, 3
PLAIN, LOOPED, FLOOR = "plain PyTorch", "lif as a loop, our call", "floor: ANN on T B states"


class Fire(torch.autograd.Function):
    """Above ``theta``; the slope is a rectangle, or 1 everywhere."""

    @staticmethod
    def forward(ctx, v, theta, everywhere):
        """Spikes."""
        ctx.save_for_backward(v)
        ctx.theta, ctx.everywhere = theta, everywhere
        return (v > theta).to(v.dtype)

    @staticmethod
    def backward(ctx, grad):
        """The slope."""
        (v,) = ctx.saved_tensors
        return grad if ctx.everywhere else grad * ((v - ctx.theta).abs() < 0.5), None, None


class Loop(torch.nn.Module):
    """The LIF actor as a loop over time, with autograd through every step."""

    def __init__(self, actor: Any) -> None:
        super().__init__()
        self.actor = actor

    def forward(self, observations):
        """``[B, D]`` -> ``[B, A]``."""
        actor, x = self.actor, torch.tanh(observations).unsqueeze(-1)
        drive = torch.exp(-0.5 * (x - actor.encoder.mean).square() / actor.encoder.std.square()).flatten(1)
        charge = torch.zeros_like(drive)
        states = [
            (torch.zeros(len(x), m.out_features), torch.zeros(len(x), m.out_features)) for m in actor.layers
        ]
        total = torch.zeros(())
        for _ in range(T):
            charge = charge + drive
            spikes = Fire.apply(charge, 0.999, True)
            charge = charge - 0.999 * spikes
            for k, layer in enumerate(actor.layers):
                v, s = states[k]
                v = 0.75 * v * (1 - s) + layer(spikes)
                spikes = Fire.apply(v, 0.5, False)
                states[k] = v, spikes
            total = total + spikes
        return torch.tanh(actor.decoder((total / T).view(-1, A, 10)).squeeze(-1))


class Floor(torch.nn.Module):
    """The multiplications of the actor and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = perceptron(D * 10, (256, 256), A * 10)

    def forward(self, observations):
        """``[B, D]`` -> ``[B, A]``."""
        return self.layers(observations.repeat(T, 10)).view(T, -1, A, 10).mean((0, 3))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--neurons", nargs="+", default=["lif", "clif", "dn", "plif"])
    parser.add_argument("--threads", type=int, default=1)
    options = arguments(parser)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    actors: dict[str, Any] = {
        n: zoo.create(f"proxy_target_{n}", obs_dim=D, act_dim=A) for n in options.neurons
    }
    reference = zoo.create("proxy_target_lif", obs_dim=D, act_dim=A)
    x = torch.randn(B, D)
    assert torch.allclose(Loop(reference)(x), reference(x), atol=1e-5)
    actors |= {LOOPED: Loop(reference), PLAIN: Loop(reference), FLOOR: Floor()}
    columns = {
        "forward": {n: forward(a, x) for n, a in actors.items()},
        "forward and backward": {n: both_ways(a, x) for n, a in actors.items()},
        "call with proxy": {n: calls(a, n, proxy=True) for n, a in actors.items()},
        "vanilla call": {n: calls(a, n, proxy=False) for n, a in actors.items()},
    }
    times = {what: measure(cases, options.rounds) for what, cases in columns.items()}
    rows = []
    for name in actors:
        cells = []
        for what, found in times.items():
            halved = 0.5 if "call" in what else 1.0
            mine = milliseconds([halved * t for t in found[name]])
            cells.append(f"{mine} ({ratio(found, name, PLAIN):.2f})")
        rows.append([name, *cells])
    print(environment(options))
    print(table(["actor", *columns], rows))


def forward(actor: Any, x: torch.Tensor) -> Callable[[], Any]:
    """The actor without gradients."""
    return torch.no_grad()(lambda: actor(x))


def both_ways(actor: Any, x: torch.Tensor) -> Callable[[], Any]:
    """The actor with gradients."""
    return lambda: actor(x).sum().backward()


def calls(actor: Any, name: str, proxy: bool) -> Callable[[], Any]:
    """Two calls of the update rule, of which one steps the actor."""
    actor, plain = copy.deepcopy(actor), name == PLAIN
    target = AnalogActor(D, A, 1.0, (512, 512)) if proxy else copy.deepcopy(actor)
    critics = TwinCritics(D, A)
    networks = Networks(
        actor=actor, target_actor=target, critics=critics, target_critics=copy.deepcopy(critics)
    )
    rates = {"actor": (actor, 3e-4), "critic": (critics, 3e-4), "proxy": (target, 1e-3)}
    optimizers = {
        who: torch.optim.Adam(network.parameters(), lr=rate, fused=None if plain else True)
        for who, (network, rate) in rates.items()
    }
    batches = [
        SimpleNamespace(
            observation=torch.randn(B, D),
            action=torch.rand(B, A) * 2 - 1,
            next_observation=torch.randn(B, D),
            reward=torch.randn(B, 1),
            not_done=torch.ones(B, 1),
        )
        for _ in range(K)
    ]
    rule, noise, call = Rule(act_limit=1.0, proxy=proxy), torch.randn(B, A), plain_call if plain else update

    def both():
        for number in (1, 2):
            call(networks, rule, batches, noise, optimizers, number)

    return both


def plain_call(
    networks: Networks, rule: Rule, batches: Any, noise: Any, optimizers: Any, number: int
) -> None:
    """The update rule in as many words as its equations have."""

    def step(optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    if rule.proxy:
        for batch in batches:
            with torch.no_grad():
                wanted = networks.actor(batch.observation)
            step(optimizers["proxy"], mse_loss(networks.target_actor(batch.observation), wanted))
    batch, limit = batches[-1], rule.act_limit
    with torch.no_grad():
        noise = (rule.policy_noise * limit * noise).clamp(-rule.noise_clip * limit, rule.noise_clip * limit)
        action = (networks.target_actor(batch.next_observation) + noise).clamp(-limit, limit)
        least = torch.minimum(*networks.target_critics(batch.next_observation, action))
        target = batch.reward + batch.not_done * rule.discount * least
    first, second = networks.critics(batch.observation, batch.action)
    step(optimizers["critic"], mse_loss(first, target) + mse_loss(second, target))
    if number % rule.policy_delay == 0:
        action = networks.actor(batch.observation)
        step(optimizers["actor"], -networks.critics.q1(batch.observation, action).mean())
        follow(networks.target_critics, networks.critics, rule.tau)
        if not rule.proxy:
            follow(networks.target_actor, networks.actor, rule.tau)


if __name__ == "__main__":
    main()
