"""LM-HT against LIF: a layer of neurons, peak memory, and a training step of a network, for T = 2, 4, 8.

    python benchmarks/lmht.py [--quick] [--threads N]

Both neurons run on the same numbers in interleaved rounds: LIF with decay 0.5, hard detached reset and the
rectangle; LM-HT with two levels. The loop is LM-HT as one writes it first, step by step under autograd
(``backend="reference"``). The network is a spiking VGG of convolutions 3-32, 32-64, 64-128, 128-128 with
norms and poolings on 32 x 32 images, batch 16; forward, cross-entropy, backward and a step of SGD.
"""

from __future__ import annotations

import argparse
import os
import warnings
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")

import _timing
import torch
from neurons import training_case
from torch.nn import functional as F

import spiking
import zoo

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

TIMES = (2, 4, 8)
LARGE, SMALL = 1 << 23, 1 << 15
PLAN = ((32,), (64,), (128,), (128,))
BATCH, SIDE, CLASSES = 16, 32, 10
warnings.filterwarnings("ignore")


def neurons(steps: int) -> dict[str, nn.Module]:
    """The contestants."""
    return {
        "LIF": spiking.LIF(decay_input=False, detach_reset=True, surrogate="rect"),
        "LM-HT": spiking.LMHT(steps),
        "LM-HT, loop": spiking.LMHT(steps, backend="reference"),
    }


def step(net: nn.Module) -> Callable[[], None]:
    """One optimiser step on fixed data."""
    x, y = torch.rand(BATCH, 3, SIDE, SIDE), torch.randint(0, CLASSES, (BATCH,))
    net.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    return run


def peak(neuron: nn.Module, x: torch.Tensor, g: torch.Tensor) -> float:
    """Peak memory of forward and backward, in inputs."""
    run = training_case(neuron, x, g)
    run()
    neuron.zero_grad()
    return _timing.peak(run)[0] / x.nbytes


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="an eighth of the numbers, three rounds")
    parser.add_argument("--threads", type=int, default=1)
    args = _timing.arguments(parser)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rounds = 3 if args.quick else 9
    print(_timing.environment(args), "\n")
    rows: dict[tuple[str, str], list[str]] = {}
    for steps in TIMES:
        for label, count, inner in (
            ("large layer", LARGE // (8 if args.quick else 1), 1),
            ("small layer", SMALL, 20),
        ):
            x, g = torch.randn(steps, count // steps), torch.randn(steps, count // steps)
            found = _timing.measure(
                {name: training_case(n, x, g) for name, n in neurons(steps).items()}, rounds, inner
            )
            for name, times in found.items():
                text = f"{_timing.milliseconds(times)} ({_timing.ratio(found, name, 'LIF'):.2f})"
                rows.setdefault((label, name), []).append(text)
            if label == "large layer":
                for name, neuron in neurons(steps).items():
                    rows.setdefault(("peak memory", name), []).append(f"{peak(neuron, x, g):.2f}")
        nets = {
            name: zoo.create("spiking_vgg11", plan=PLAN, hidden=0, time_steps=steps, **settings)
            for name, settings in {
                "LIF": {},
                "LM-HT": {"neuron": "lmht"},
                "LM-HT, loop": {"neuron": "lmht", "neuron_args": {"backend": "reference"}},
            }.items()
        }
        found = _timing.measure({name: step(net) for name, net in nets.items()}, rounds)
        for name, times in found.items():
            text = f"{_timing.milliseconds(times)} ({_timing.ratio(found, name, 'LIF'):.2f})"
            rows.setdefault(("training step", name), []).append(text)
    body = [[what, name, *cells] for (what, name), cells in sorted(rows.items())]
    print(_timing.table(["of", "neuron", *[f"T={t}" for t in TIMES]], body))


if __name__ == "__main__":
    main()
