"""Milliseconds of one training call of an agent at full size, and of its actor alone.

    python benchmarks/control.py [--rounds 30] [--neurons lif clif dn plif]

Shapes of InvertedDoublePendulum-v4: 11 numbers in, one action, hidden layers of 256, batch 256, T = 5, and a
proxy of 512-512 with K = 3. Beside the actors runs a plain PyTorch loop over T of the LIF equations, and, as
the floor, an ANN of the same size on T times as many states. One thread; the least of the rounds counts.
"""

from __future__ import annotations

import argparse
import copy
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

import zoo
from lightning_modules.td3 import Networks, Rule, update
from zoo.models.proxy_target import AnalogActor, TwinCritics

if TYPE_CHECKING:
    from collections.abc import Callable

D, A, B, T, K = 11, 1, 256, 5, 3


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


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--neurons", nargs="+", default=["lif", "clif", "dn", "plif"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    actors: dict[str, Any] = {
        n: zoo.create(f"proxy_target_{n}", obs_dim=D, act_dim=A) for n in options.neurons
    }
    reference = zoo.create("proxy_target_lif", obs_dim=D, act_dim=A)
    actors["lif, plain loop"] = Loop(reference)
    x = torch.randn(B, D)
    assert torch.allclose(Loop(reference)(x), reference(x), atol=1e-5)
    print("| actor | forward | forward and backward | call with proxy | vanilla call |")
    print("| --- | --- | --- | --- | --- |")
    for name, actor in actors.items():
        cells = [*alone(actor, x, options.rounds), *(call(actor, p, options.rounds) for p in (True, False))]
        print(f"| {name} | {' | '.join(f'{ms:.1f} ms' for ms in cells)} |")
    floor = AnalogActor(D, A, 1.0, (256, 256))
    cells = alone(floor, torch.randn(T * B, D), options.rounds)
    print(f"| floor: ANN on T B states | {' | '.join(f'{ms:.1f} ms' for ms in cells)} | | |")


def least(what: Callable[[], object], rounds: int) -> float:
    """Milliseconds of the fastest round."""
    what()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        what()
        found.append(time.perf_counter() - start)
    return min(found) * 1e3


def alone(actor: Any, x: torch.Tensor, rounds: int) -> list[float]:
    """The actor forward, and forward and backward."""

    def forward():
        with torch.no_grad():
            actor(x)

    return [least(forward, rounds), least(lambda: actor(x).sum().backward(), rounds)]


def call(actor: Any, proxy: bool, rounds: int) -> float:
    """Two calls of the update rule, of which one steps the actor, halved."""
    actor = copy.deepcopy(actor)
    target = AnalogActor(D, A, 1.0, (512, 512)) if proxy else copy.deepcopy(actor)
    critics = TwinCritics(D, A)
    networks = Networks(
        actor=actor, target_actor=target, critics=critics, target_critics=copy.deepcopy(critics)
    )
    optimizers = {
        "actor": torch.optim.Adam(actor.parameters(), lr=3e-4),
        "critic": torch.optim.Adam(critics.parameters(), lr=3e-4),
        "proxy": torch.optim.Adam(target.parameters(), lr=1e-3),
    }
    batch = SimpleNamespace(
        observation=torch.randn(B, D),
        action=torch.rand(B, A) * 2 - 1,
        next_observation=torch.randn(B, D),
        reward=torch.randn(B, 1),
        not_done=torch.ones(B, 1),
    )
    rule, noise = Rule(act_limit=1.0, proxy=proxy), torch.randn(B, A)

    def both():
        for number in (1, 2):
            update(networks, rule, [batch] * K, noise, optimizers, number)

    return least(both, max(1, rounds // 2)) / 2


if __name__ == "__main__":
    main()
