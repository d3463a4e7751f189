"""Accuracy and cost of token reduction on a trained network of the package: methods, shares, lambda.

    python benchmarks/token_reduction.py [NAME] [--keep 0.5 0.25] [--operators remove] [--digits 1000]

Random scores are a mean over seeds. Operations are per digit, scoring included. ``uncert reversed`` keeps
what Uncert would drop.
"""

from __future__ import annotations

import argparse
import time

import torch

import spiking
import zoo
from datamodules import MNIST5kDataModule
from zoo.tokens.uncert import Uncert

SEEDS = 3
MEASURED = 100  # digits that the operations are counted on


class Reversed(Uncert):
    """The least important tokens first."""

    def forward(self, x: torch.Tensor, point: zoo.TokenBlock) -> torch.Tensor:
        """Negative scores."""
        return -super().forward(x, point)


def cases(operators: list[str]) -> list[tuple[str, list[dict]]]:
    """Names, and the arguments of the runs that each is a mean of."""
    found: dict[str, list[dict]] = {}
    for operator in operators:
        for kind in ("vacuity", "entropy"):
            for weight in (-1.0, -0.5, 0.0, 0.5, 1.0):
                settings = {"method": "uncert", "fluctuation_weight": weight, "kind": kind}
                found[f"uncert, {kind}, lambda {weight:g}"] = [settings]
        found["uncert reversed"] = [{"method": Reversed()}]
        found |= {method: [{"method": method}] for method in ("firing_rate", "norm")}
        found["random"] = [{"method": "random", "seed": seed} for seed in range(SEEDS)]
        for name in list(found):
            if "; " not in name:
                found[f"{name}; {operator}"] = [{**run, "operator": operator} for run in found.pop(name)]
    found |= {f"{method}; bypass": [{"method": method}] for method in ("tp", "tp_code")}
    if "remove" in operators:
        found["tome; merge"] = [{"method": "tome"}]
    return list(found.items())


def measure(
    model: torch.nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> tuple[float, float, float]:
    """Accuracy, operations and energy in uJ per digit."""
    with torch.no_grad():
        hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches)
    report = spiking.profile_energy(model, batches[0][0][:MEASURED])
    return hits / sum(len(y) for _, y in batches), report.sops, report.energy_mj * 1e3


def main() -> None:
    """Print one table per share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", nargs="?", default="spikformer_nano")
    parser.add_argument("--keep", type=float, nargs="+", default=[0.5, 0.25])
    parser.add_argument("--operators", nargs="+", default=["remove"], help="remove, bypass, merge")
    parser.add_argument("--digits", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = MNIST5kDataModule(eval_batch_size=250)
    data.setup("test")
    batches = [batch for batch, _ in zip(data.test_dataloader(), range(-(-args.digits // 250)), strict=False)]
    model = zoo.load(args.name)
    print(f"{args.name}, {args.digits} digits, {time.strftime('%Y-%m-%d')}")
    accuracy, sops, energy = measure(model, batches)
    print(f"| all tokens | {accuracy:.1%} | {sops / 1e6:.2f} M | {energy:.2f} uJ |")
    for keep in args.keep:
        print(f"\n| keep {keep:g} | accuracy | SOPs | energy |\n| --- | --- | --- | --- |")
        for name, runs in cases(args.operators):
            rows = [measure(zoo.reduce_tokens(model, keep=keep, **run), batches) for run in runs]
            accuracy, sops, energy = (sum(column) / len(rows) for column in zip(*rows, strict=True))
            print(f"| {name} | {accuracy:.1%} | {sops / 1e6:.2f} M | {energy:.2f} uJ |", flush=True)


if __name__ == "__main__":
    main()
