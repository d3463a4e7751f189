"""Training step of Ge2mS-T against SpikingResformer of like size: CPU time and peak memory over T.

    python benchmarks/ge2mst.py [--rounds 5] [--threads N] [--batch 8] [--side 64]

Ge2mS-T is trained in its quantised form, so its code may be as long as one likes: T = 2 is (G, n) = (1, 2),
T = 4 (2, 2), T = 8 (4, 2). Networks of about 11 M parameters; forward, cross-entropy, backward and a step
of AdamW. Memory is that of tensors, without parameters and optimiser.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")

import _timing
import torch
from torch import nn
from torch.nn import functional as F

import zoo

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = (2, 4, 8)
CODES = {2: (1, 2), 4: (2, 2), 8: (4, 2)}  # G and n


def networks(T: int, side: int) -> dict[str, nn.Module]:
    """Both, of the same T."""
    groups, per_group = CODES[T]
    return {
        "ge2mst_xs": zoo.create("ge2mst_xs", groups=groups, steps_per_group=per_group),
        "spikingresformer_ti": zoo.create("spikingresformer_ti", time_steps=T, img_size=side),
    }


def step(net: nn.Module, batch: int, side: int) -> Callable[[], None]:
    """One optimiser step on fixed data."""
    x, y = torch.rand(batch, 3, side, side), torch.randint(0, 1000, (batch,))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    return run


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=64)
    args = _timing.arguments(parser)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    nets = {(name, T): net for T in STEPS for name, net in networks(T, args.side).items()}
    runs = {key: step(net, args.batch, args.side) for key, net in nets.items()}
    found = _timing.measure({f"{name} {T}": run for (name, T), run in runs.items()}, args.rounds)
    memory = {
        key: _timing.peak(run)[0] / 2**20 for key, run in runs.items()
    }  # after the first step: no states
    rows = []
    for name in dict.fromkeys(name for name, _ in nets):
        size = sum(p.numel() for p in nets[name, STEPS[0]].parameters())
        times = [
            f"{_timing.milliseconds(found[f'{name} {T}'])}"
            f" ({_timing.ratio(found, f'{name} {T}', f'{name} {STEPS[0]}'):.2f})"
            for T in STEPS
        ]
        peaks = [f"{memory[name, T]:.0f} ({memory[name, T] / memory[name, STEPS[0]]:.2f})" for T in STEPS]
        rows += [[name, f"{size / 1e6:.1f} M", "step, ms", *times], [name, "", "peak, MiB", *peaks]]
    print(f"batch {args.batch}, {args.side} x {args.side} pixels; {_timing.environment(args, 'timm')}\n")
    print(_timing.table(["network", "parameters", "of", *(f"T={T}" for T in STEPS)], rows))


if __name__ == "__main__":
    main()
