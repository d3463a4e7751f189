"""Accuracy and cost of token reduction on trained spiking transformers, in a table that grows row by row.

    python benchmarks/token_table.py [SET ...] [--table FILE] [--threads 1] [--list] [--figure FILE]

Sets are ``digits`` (MNIST-5k), ``cifar10`` (JPEG copy, ``CIFAR10_JPEG``) and ``nmnist`` (event recordings,
``NMNIST_SMALL``), each with a small Spikformer, QKFormer and SpikingResformer. Networks that the package does
not ship are trained first by their configuration, and a cut-off training goes on. Every share of tokens is
measured for every scorer: accuracy, operations and energy with the scoring included, and CPU time. Uncert
comes also with the lambda that `zoo.choose_fluctuation_weight` finds on training samples. Rows that the table
has are not computed again; the figure is drawn from the table.
"""

from __future__ import annotations

import argparse
import csv
import functools
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import real_runs
import torch
import yaml

import datamodules
import spiking
import zoo

if TYPE_CHECKING:
    from torch import Tensor, nn

KEEPS = (0.9, 0.7, 0.5, 0.3, 0.1)
SEEDS = (0, 1, 2)  # of random scores
ABLATED = ("spikformer", (0.5, 0.3))  # where the settings of Uncert are varied
COUNTED = 50  # samples that operations are counted on
CHOSEN = "uncert, chosen lambda"
CHOOSING = 64  # training samples that choose lambda


@dataclass(frozen=True)
class Source:
    """A trained network and where its data lie."""

    config: str
    shipped: str | None = None  # name in the package
    folder: tuple[str, str] | None = None  # option of the data module, and the variable that names the folder
    every: int = 1  # thins out the test samples
    with_val: bool = False  # validation samples count as test samples: nothing was chosen by them

    @property
    def run(self) -> Path:
        """Where its training lives."""
        return real_runs.ROOT / "runs" / Path(self.config).with_suffix("").as_posix().replace("/", "-")


CIFAR, NMNIST = ("folder", "CIFAR10_JPEG"), ("root", "NMNIST_SMALL")
SETS = {
    "digits": (
        Source("spikformer/mnist5k.yaml", "spikformer_nano"),
        Source("qkformer/mnist5k.yaml"),
        Source("spikingresformer/mnist5k.yaml", "spikingresformer_nano"),
    ),
    "cifar10": tuple(
        Source(f"{name}/cifar10_jpeg_small.yaml", folder=CIFAR, every=5)
        for name in ("spikformer", "qkformer", "spikingresformer")
    ),
    "nmnist": tuple(
        Source(f"{name}/nmnist.yaml", folder=NMNIST, with_val=True)
        for name in ("spikformer", "qkformer", "spikingresformer")
    ),
}


@dataclass(frozen=True)
class Case:
    """A scorer with its settings; several where a mean is taken."""

    name: str
    settings: tuple[dict[str, Any], ...] = field(default_factory=tuple)


def cases(network: str, keep: float) -> list[Case]:
    """All scorers of a network at a share; the operator is the first that fits, removal if possible."""
    uncert: dict[str, dict[str, Any]] = {"uncert": {}, "uncert, not centred": {"centre": False}}
    if network == ABLATED[0] and keep in ABLATED[1]:
        for weight in (0.5, 0.0, -0.5, -1.0):
            uncert[f"uncert, lambda {weight:g}"] = {"fluctuation_weight": weight}
        uncert["uncert, entropy"] = {"kind": "entropy"}
    bypass: list[Case] = []
    if network != "spikingresformer" and keep <= 0.5:  # where bypassing is not what these take by themselves
        bypass = [
            Case(f"{CHOSEN}, bypass", ({"operator": "bypass"},)),
            Case("firing_rate, bypass", ({"method": "firing_rate", "operator": "bypass"},)),
            Case(
                "random, bypass", tuple({"method": "random", "seed": s, "operator": "bypass"} for s in SEEDS)
            ),
        ]
    return [
        Case(CHOSEN, ({},)),
        *bypass,
        *(Case(name, ({"method": "uncert", **settings},)) for name, settings in uncert.items()),
        *(Case(name, ({"method": name},)) for name in ("firing_rate", "norm", "tp", "tp_code", "tome")),
        Case("random", tuple({"method": "random", "seed": seed} for seed in SEEDS)),
    ]


def data_of(source: Source) -> Any:
    """The data module of the configuration, without augmentation."""
    config = yaml.safe_load((real_runs.ROOT / "configs" / source.config).read_text())["data"]
    options = {k: v for k, v in config["init_args"].items() if k not in ("crop_padding", "flip")}
    if source.folder is not None:
        key, variable = source.folder
        options[key] = os.environ.get(variable, options[key])
    return getattr(datamodules, config["class_path"])(**options)


def network(source: Source, threads: int) -> Any:
    """The trained network, trained first if need be."""
    if source.shipped is not None:
        return zoo.load(source.shipped, pretrained=True)
    checkpoint = source.run / "checkpoints" / "last.ckpt"
    if not (source.run / "report.json").exists():
        words = [sys.executable, "-m", "cli", "fit", "--config", f"configs/{source.config}"]
        if source.folder is not None and source.folder[1] in os.environ:
            words += [f"--data.init_args.{source.folder[0]}", os.environ[source.folder[1]]]
        words += ["--ckpt_path", "last"] if checkpoint.exists() else []
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run(words, cwd=real_runs.ROOT, env=env, check=True)
    return zoo.load(str(checkpoint))


def samples(source: Source) -> tuple[Tensor, Tensor]:
    """Test samples ``[N, C, H, W]`` or ``[T, N, C, H, W]``, and labels."""
    data = data_of(source)
    data.prepare_data()
    data.setup()
    loaders = [data.test_dataloader(), *([data.val_dataloader()] if source.with_val else [])]
    x, y = (torch.cat(part)[:: source.every] for part in zip(*(b for a in loaders for b in a), strict=True))
    return (x.transpose(0, 1).contiguous() if x.dim() == 5 else x), y


def chosen_weight(model: Any, source: Source) -> float:
    """Lambda of the network, by what leaving out a token costs on training samples."""
    data = data_of(source)
    data.prepare_data()
    data.setup()
    x, y = next(iter(data.calibration_dataloader(CHOOSING, batch_size=CHOOSING)))
    x = x.transpose(0, 1).contiguous() if x.dim() == 5 else x
    return float(zoo.choose_fluctuation_weight(model, x, y).weight)


@torch.no_grad()
def measure(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Accuracy; operations, energy and CPU time of one sample."""
    axis = x.dim() - 4  # of samples
    start = time.process_time()
    hits = sum(
        int((model(part).argmax(1) == truth).sum())
        for part, truth in zip(x.split(250, axis), y.split(250), strict=True)
    )
    seconds = time.process_time() - start
    report = spiking.profile_energy(model, x.narrow(axis, 0, min(COUNTED, len(y))))
    return {
        "accuracy": hits / len(y),
        "sops": report.sops,
        "energy_uj": report.energy_mj * 1e3,
        "ms": seconds * 1e3 / len(y),
    }


def row(
    name: str, source: Source, keep: float, case: Case, weight: float, model: Any, x: Tensor, y: Tensor
) -> dict[str, Any]:
    """Measure one scorer at one share; a refusal is written down as one."""
    operator, error, note = "", "", ""
    if case.name.startswith(CHOSEN):
        uncert = {"method": "uncert", "fluctuation_weight": weight}
        case = Case(case.name, tuple({**uncert, **settings} for settings in case.settings))
        note = f"lambda {weight:g}"
    found: list[dict[str, float]] = []
    for settings in case.settings:
        try:
            reduced = zoo.reduce_tokens(model, keep=keep, **settings)
            found.append(measure(reduced, x, y))
        except ValueError as problem:  # ToMe also refuses when it sees how many tokens would have to merge
            error = str(problem)
            break
        operator = reduced.token_reduction.operator
    mean = {k: statistics.mean(f[k] for f in found) for k in found[0]} if found and not error else {}
    return cells(name, source, keep, case.name, operator, mean, len(y), error or note)


def cells(
    name: str,
    source: Source,
    keep: float,
    scorer: str,
    operator: str,
    mean: dict[str, float],
    count: int,
    note: str = "",
) -> dict[str, Any]:
    """A line of the table."""
    digits = {"accuracy": "{:.4f}", "sops": "{:.4g}", "energy_uj": "{:.4g}", "ms": "{:.3f}"}
    return {
        "set": name,
        "network": Path(source.config).parts[0],
        "keep": keep,
        "scorer": scorer,
        "operator": operator,
        **{k: form.format(mean[k]) if mean else "" for k, form in digits.items()},
        "samples": count,
        "date": time.strftime("%Y-%m-%d"),
        "note": note,
    }


def finished(table: Path) -> set[tuple[str, ...]]:
    """What the table has."""
    return {(r["set"], r["network"], r["keep"], r["scorer"]) for r in read(table)}


def read(table: Path) -> list[dict[str, str]]:
    """The lines of the table."""
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def figure(rows: list[dict[str, str]], path: Path) -> None:
    """Accuracy against the share of tokens, one panel for each network and set."""
    from matplotlib.figure import Figure

    from lightning_modules.figures import save

    shown = {
        "uncert": ("#2b6cb0", "-"),
        CHOSEN: ("#2b6cb0", "--"),
        "uncert, not centred": ("#2b6cb0", ":"),
        "tp": ("#dd6b20", "-"),
        "tome": ("#805ad5", "-"),
        "firing_rate": ("#2f855a", "-"),
        "norm": ("#2f855a", "--"),
        "random": ("#4a5568", "-"),
    }
    sets = list(dict.fromkeys(r["set"] for r in rows))
    networks = list(dict.fromkeys(r["network"] for r in rows))
    canvas = Figure(figsize=(3.4 * len(networks), 2.7 * len(sets) + 0.5), layout="constrained")
    grid = canvas.subplots(len(sets), len(networks), squeeze=False, sharex=True)
    for line, name in zip(grid, sets, strict=True):
        for axes, net in zip(line, networks, strict=True):
            mine = [r for r in rows if (r["set"], r["network"]) == (name, net) and r["accuracy"]]
            whole = [(1.0, float(r["accuracy"])) for r in mine if r["scorer"] == "all tokens"]
            for scorer, (colour, style) in shown.items():
                points = [(float(r["keep"]), float(r["accuracy"])) for r in mine if r["scorer"] == scorer]
                if points:
                    x, y = zip(*sorted(points + whole), strict=True)
                    axes.plot(x, y, style, color=colour, label=scorer, marker="o", ms=3, lw=1.4)
            axes.set_title(f"{name}: {net}", fontsize=9)
            axes.grid(alpha=0.3)
        line[0].set_ylabel("accuracy")
    grid[0][0].invert_xaxis()  # shared by all
    for axes in grid[-1]:
        axes.set_xlabel("share of tokens at the end")
    handles, labels = grid[0][0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8)
    save(canvas, path)


def main() -> None:
    """Do what is missing from the table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="SET", help=f"some of: {', '.join(SETS)}")
    parser.add_argument("--table", type=Path, default=real_runs.ROOT / "benchmarks" / "token_table.csv")
    default = real_runs.ROOT / "docs" / "figures" / "token_reduction.png"
    parser.add_argument("--figure", type=Path, default=default)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="say what would be computed, and stop")
    args = parser.parse_args()
    for name in args.names:
        if name not in SETS:
            parser.error(f"unknown set {name!r}; known: {', '.join(SETS)}")
    torch.set_num_threads(args.threads)
    done = finished(args.table)
    for name in args.names or SETS:
        for source in SETS[name]:
            net = Path(source.config).parts[0]
            loaded = functools.cache(lambda s=source: (network(s, args.threads), *samples(s)))
            weight = functools.cache(lambda s=source: chosen_weight(network(s, args.threads), s))
            if (name, net, "1.0", "all tokens") not in done:
                print(name, net, "all tokens", flush=True)
                if not args.list:
                    model, x, y = loaded()
                    mean = measure(model, x, y)
                    real_runs.append(args.table, cells(name, source, 1.0, "all tokens", "", mean, len(y)))
            for keep in KEEPS:
                for case in cases(net, keep):
                    if (name, net, str(keep), case.name) in done:
                        continue
                    print(name, net, keep, case.name, flush=True)
                    if not args.list:
                        chosen = weight() if case.name.startswith(CHOSEN) else 0.0
                        real_runs.append(args.table, row(name, source, keep, case, chosen, *loaded()))
    if not args.list:
        figure(read(args.table), args.figure)


if __name__ == "__main__":
    main()
