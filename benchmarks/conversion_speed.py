"""Converted networks: what a conversion costs, and how fast the result runs next to the ANN run T times.

    python benchmarks/conversion_speed.py [--quick] [--model NAME] [--size 112] [--batch 8] [--steps 4 8]

The source is a timm network with random weights in evaluation mode. The floor is the source on T * B images:
what convolutions and norms cost on dense hardware by themselves. SpikingJelly's converter joins in where it
is installed.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")

from typing import TYPE_CHECKING, Any

import _timing
import timm
import torch
from torch import Tensor, nn

from conversion import convert

if TYPE_CHECKING:
    from collections.abc import Callable

warnings.filterwarnings("ignore")


def repeated(ann: nn.Module, x: Tensor, steps: int) -> Callable[[], Tensor]:
    """The floor: the source on all steps at once, in the layout that is faster here."""
    images = x.repeat(steps, 1, 1, 1)
    return lambda: ann(images).unflatten(0, (steps, -1)).mean(0)


def looped(ann: nn.Module, x: Tensor, steps: int) -> Callable[[], Tensor]:
    """The source called T times."""

    def run() -> Tensor:
        total = ann(x)
        for _ in range(steps - 1):
            total = total + ann(x)
        return total / steps

    return run


def spikingjelly(ann: nn.Module, x: Tensor) -> tuple[nn.Module, Callable[[nn.Module], None]]:
    """The peer's converter with its thresholds from the largest activations; steps are a Python loop."""
    from spikingjelly.activation_based import ann2snn, functional
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(x, torch.zeros(len(x), dtype=torch.long)), batch_size=len(x))
    converter = ann2snn.FXConverter(recipe=ann2snn.RateCodingRecipe(loader, mode="max"), device="cpu")
    return converter.convert(copy.deepcopy(ann)).eval(), functional.reset_net


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 32])
    parser.add_argument("--methods", nargs="+", default=["qcfs", "srp", "cos", "parallel", "dcgs"])
    args = _timing.arguments(parser)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    print(_timing.environment(args, "timm", "spikingjelly"), "\n")
    ann = timm.create_model(args.model, num_classes=100).eval()
    x = torch.randn(args.batch, 3, args.size, args.size)
    rounds = 2 if args.quick else 5
    costs: list[list[Any]] = []
    rows: list[list[str]] = []
    with torch.no_grad():
        for steps in args.steps:
            cases: dict[str, Callable[[], Any]] = {
                "ANN on T * B images (floor)": repeated(ann, x, steps),
                "ANN called T times": looped(ann, x, steps),
            }
            for method in args.methods:
                began = time.process_time()
                snn = convert(ann, method, steps, x, progress=False)
                if steps == args.steps[0]:
                    seconds = {k: f"{v:.2f}" for k, v in snn.report.seconds.items()}
                    costs.append([method, f"{time.process_time() - began:.2f}", *seconds.values()])
                cases[method] = lambda snn=snn: snn(x)
            if "qcfs" in args.methods and _timing.installed("spikingjelly"):
                began = time.process_time()
                peer, reset = spikingjelly(ann, x)
                if steps == args.steps[0]:
                    costs.append(["SpikingJelly", f"{time.process_time() - began:.2f}", "", "", ""])

                def run(peer: nn.Module = peer, reset: Any = reset, steps: int = steps) -> None:
                    reset(peer)
                    looped(peer, x, steps)()

                cases["SpikingJelly"] = run
            times = _timing.measure(cases, rounds, warm_up=1)
            floor = "ANN on T * B images (floor)"
            for name, measured in times.items():
                images = args.batch / statistics.median(measured)
                share = _timing.ratio(times, name, floor)
                rows.append([f"T={steps}", name, f"{images:.2f}", f"{share:.3f}"])
    print(_timing.table(["method", "seconds in all", "graph", "calibration", "self-test"], costs), "\n")
    print(_timing.table(["steps", "network", "images/s", "time, of the floor"], rows))


if __name__ == "__main__":
    main()
