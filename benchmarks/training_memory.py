"""Peak memory and time of a training step: plain, with spikes as bits, with activation checkpointing, ReLU.

    python benchmarks/training_memory.py [--entry sew_resnet18] [--steps 4 8 16] [--batch 8] [--size 64]

Forward, cross-entropy and backward; channels-last. The peak is that of all tensors beside the weights, with
their gradients; the last column leaves these out. ReLU is the same network with ReLU in the place of neurons,
which runs on T * B images behind its stem.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")

import _timing
import torch
from torch import nn
from torch.nn import functional as F

import spiking
import zoo

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN = "plain"


def step(net: nn.Module, batch: int, size: int, compressed: bool) -> Callable[[], None]:
    """Forward, loss and backward from no gradients, on fixed data."""
    x = torch.rand(batch, 3, size, size).to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (batch,))

    def run() -> None:
        net.zero_grad()
        with spiking.compress_spikes() if compressed else contextlib.nullcontext():
            loss = F.cross_entropy(net(x), y)
        loss.backward()

    return run


def without_neurons(net: nn.Module) -> nn.Module:
    """The network with ReLU in the place of neurons."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, spiking.Neuron):
                setattr(module, name, nn.ReLU())
    return net


def networks(entry: str, steps: int) -> dict[str, tuple[nn.Module, bool]]:
    """By name: the network, and whether its spikes are compressed."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        net = zoo.create(entry, num_classes=10, time_steps=steps, in_chans=3)
        return net.to(memory_format=torch.channels_last)

    recomputed = make()
    recomputed.set_grad_checkpointing()
    return {
        PLAIN: (make(), False),
        "spikes as bits": (make(), True),
        "activation checkpointing": (recomputed, False),
        "ReLU on T * B images": (without_neurons(make()), False),
    }


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--entry", default="sew_resnet18")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    args = _timing.arguments(parser)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    print(_timing.environment(args), "\n")
    rows = []
    for steps in args.steps:
        nets = networks(args.entry, steps)
        runs = {name: step(net, args.batch, args.size, bits) for name, (net, bits) in nets.items()}
        times = _timing.measure(runs, args.rounds, warm_up=1)
        peaks, gradients = {}, 0
        for name, run in runs.items():
            net = nets[name][0]
            net.zero_grad()
            peaks[name] = _timing.peak(run)[0] / 2**20
            gradients = sum(p.nbytes for p in net.parameters()) / 2**20
            net.zero_grad()
        for name, found in peaks.items():
            own = found - gradients
            rows.append(
                [
                    f"T = {steps}",
                    name,
                    f"{_timing.milliseconds(times[name])} ({_timing.ratio(times, name, PLAIN):.2f})",
                    f"{found:.0f} ({found / peaks[PLAIN]:.2f})",
                    f"{own:.0f} ({own / (peaks[PLAIN] - gradients):.2f})",
                ]
            )
    print(_timing.table(["steps", "training", "CPU ms", "peak, MiB", "without gradients"], rows))


if __name__ == "__main__":
    main()
