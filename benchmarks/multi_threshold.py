"""Neurons with levels, of ECMT and DCGS, over the tokens of a ViT-S: the kernel against the loop.

    python benchmarks/multi_threshold.py [--quick] [--threads N]

T = 8, batch 4, 197 tokens, 384 features, float32. The loop walks through levels and steps in plain PyTorch
(``backend="reference"``). Beside them what else such a network does with the same numbers: a copy, and the
linear layer that the spikes enter.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")

import _timing
import torch
from torch.nn import functional as F

from spiking.functional import codes, multi_threshold
from spiking.levels import Levels

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (8, 4, 197, 384)
LEVELS = {
    "ECMT, one a layer": Levels.smallest(0.05, 0.04, n=8),
    "DCGS, one a layer": Levels.largest(4.0, n=8),
    "DCGS, one a token": Levels.largest(torch.linspace(1.0, 4.0, SHAPE[2]).view(1, -1, 1), n=8),
    "DCGS, one a feature": Levels.largest(torch.linspace(1.0, 4.0, SHAPE[3]), n=8),
    "DCGS, single": Levels.single(2.0),
}


def contestants(levels: Levels, x: torch.Tensor, m: torch.Tensor) -> dict[str, Callable[[], object]]:
    """The two forms of a neuron, each by kernel and by loop."""
    found: dict[str, Callable[[], object]] = {}
    for name, backend in (("kernel", "auto"), ("loop", "reference")):
        settings = {"kind": "relu", "keep_state": False, "backend": backend}
        found[f"track, {name}"] = lambda s=settings: multi_threshold.track(m, levels, **s)
        found[f"rate-coded, {name}"] = lambda s=settings: multi_threshold.rate_coded(x, levels, **s)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--threads", type=int, default=1)
    options = _timing.arguments(parser)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    x = torch.randn(SHAPE)
    m, weight = codes.running_mean(x)[0], torch.randn(SHAPE[-1], SHAPE[-1])
    rows = []
    with torch.no_grad():
        for name, levels in LEVELS.items():
            cases = contestants(levels, x, m)
            times = _timing.measure(cases, rounds=2 if options.quick else 15)
            cells = []
            for form in ("track", "rate-coded"):
                slower = _timing.ratio(times, f"{form}, loop", f"{form}, kernel")
                cells += [_timing.milliseconds(times[f"{form}, {w}"]) for w in ("kernel", "loop")] + [
                    f"{slower:.0f}"
                ]
            rows.append([name, *cells])
        rest = _timing.measure({"copy": x.clone, "linear": lambda: F.linear(x, weight)}, rounds=15)
    head = ["levels", "track, ms", "loop, ms", "ratio", "rate-coded, ms", "loop, ms", "ratio"]
    print(_timing.environment(options), "", _timing.table(head, rows), "", sep="\n")
    print(", ".join(f"{name}: {_timing.milliseconds(t)} ms" for name, t in rest.items()))


if __name__ == "__main__":
    main()
