"""How time and memory of training and inference grow with T, batch and image: ours, SpikingJelly, ReLU.

    python benchmarks/cost_growth.py [--rounds 3] [--figure benchmarks/cost_growth.svg]

The small VGG of `training_step.py`; one size grows at a time from T = 4, batch 4, 16 x 16. ReLU runs on T * B
images. Prints a table and draws it; under three minutes on a quiet core.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import _timing
import adapter
import torch
import training_step
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

warnings.filterwarnings("ignore")


class Size(NamedTuple):
    """What grows."""

    steps: int = 4
    batch: int = 4
    side: int = 16


GROWTH = {
    "T": [Size(steps=n) for n in (1, 2, 4, 8, 16, 32, 64)],
    "batch": [Size(batch=n) for n in (1, 4, 16, 64)],
    "image side": [Size(side=n) for n in (8, 16, 32, 64)],
}
MODES = ("training", "inference")


class Found(NamedTuple):
    """Seconds and bytes of one network at one size."""

    seconds: float
    peak: int


def networks(side: int) -> dict[str, nn.Module]:
    """By name, for images of ``side``."""
    head = training_step.WIDTHS[-1] * (side // 8) ** 2
    torch.manual_seed(0)
    seed, relu = training_step.Seed(), training_step.WithoutNeurons(channels_last=True)
    seed.fc, relu.net.fc = nn.Linear(head, 10), nn.Linear(head, 10)
    found: dict[str, nn.Module] = {"ours": adapter.SmallVGG(seed)}
    if _timing.installed("spikingjelly"):
        from spikingjelly.activation_based import layer

        peer = training_step.SpikingJelly()
        peer.body[-1] = layer.Linear(head, 10, step_mode="m")
        found["SpikingJelly"] = peer
    return found | {"ReLU": relu}


def call(net: nn.Module, size: Size, mode: str) -> Callable[[], None]:
    """A step of training without its optimiser, or a forward pass."""
    x = torch.rand(size.batch, 3, size.side, size.side)
    y = torch.randint(0, 10, (size.batch,))

    def train() -> None:
        net.train().zero_grad()
        F.cross_entropy(net(x, size.steps), y).backward()

    def infer() -> None:
        net.eval()
        with torch.no_grad():
            net(x, size.steps)

    return train if mode == "training" else infer


def measure(size: Size, mode: str, rounds: int) -> dict[str, Found]:
    """All networks, interleaved."""
    runs = {name: call(net, size, mode) for name, net in networks(size.side).items()}
    times = _timing.measure(runs, rounds, warm_up=1)
    return {name: Found(statistics.median(times[name]), _timing.peak(run)[0]) for name, run in runs.items()}


def draw(found: dict[tuple[str, str, Size], dict[str, Found]], path: Path) -> None:
    """Time above, memory below, against each of the three sizes, both axes logarithmic."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, len(GROWTH), sharey="row")
    styles = dict(zip(MODES, ("-", "--"), strict=True))
    for column, (label, sizes) in enumerate(GROWTH.items()):
        values = [s.steps if label == "T" else s.batch if label == "batch" else s.side for s in sizes]
        for mode, (n, name) in itertools.product(MODES, enumerate(found[label, MODES[0], sizes[0]])):
            own = [found[label, mode, size][name] for size in sizes]
            style = {"color": f"C{n}", "linestyle": styles[mode], "marker": "o", "markersize": 3}
            axes[0, column].loglog(values, [1e3 * f.seconds for f in own], label=f"{name}, {mode}", **style)
            axes[1, column].loglog(values, [f.peak / 2**20 for f in own], **style)
        axes[1, column].set_xlabel(label)
        for row in (0, 1):
            axes[row, column].set_xticks(values, [str(v) for v in values])
            axes[row, column].minorticks_off()
            axes[row, column].grid(alpha=0.3)
    axes[0, 0].set_ylabel("CPU ms")
    axes[1, 0].set_ylabel("peak, MiB")
    axes[0, 0].legend(fontsize=7)
    figure.savefig(path)


def main() -> None:
    """Print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--figure", type=Path, default=Path(__file__).with_suffix(".svg"))
    args = _timing.arguments(parser)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    print(_timing.environment(args, "spikingjelly"), "\n")
    found, rows, header = {}, [], []
    for label, sizes in GROWTH.items():
        for size, mode in itertools.product(sizes, MODES):
            own = found[label, mode, size] = measure(size, mode, args.rounds)
            header = [f"{name}, ms (MiB)" for name in own]
            cells = [f"{1e3 * f.seconds:.1f} ({f.peak / 2**20:.1f})" for f in own.values()]
            rows.append([label, size.steps, size.batch, size.side, mode, *cells])
    print(_timing.table(["grows", "T", "batch", "side", "of", *header], rows))
    draw(found, args.figure)


if __name__ == "__main__":
    main()
