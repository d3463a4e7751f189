"""A spiking agent learns to swing a pendulum up: proxy target against vanilla, and the conversion of an ANN.

    python benchmarks/pendulum.py [--seeds 0 1 2] [--folder runs/pendulum] [--figure FILE.png]

Trains configs/proxy_target/pendulum_lif.yaml three times for each seed: with the proxy, with a moving average
of the spiking actor as its target (vanilla), and with an ANN as actor (TD3). Each finished run, and each
seed's conversion, is a line of JSON in FOLDER/table.jsonl at once; called again, the script skips what is
there, and goes on with a run that was cut. In the end it prints the table and draws the learning curves.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

import zoo
from conversion import convert
from datamodules import ControlDataModule

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/proxy_target/pendulum_lif.yaml"
VARIANTS = {
    "proxy": [],
    "vanilla": ["--model.init_args.target", "polyak"],
    "ann": ["--model.init_args.target", "polyak", "--model.init_args.model", "proxy_target_ann"],
}
NAMES = {"proxy": "LIF, proxy target", "vanilla": "LIF, vanilla", "ann": "ANN, TD3"}
STEPS = (1, 2, 4, 5, 8, 16, 32, 64, 100)
METHODS = ("qcfs", "dcgs")
CALIBRATION, EPISODES = 2048, 50


def main() -> None:
    """Do what is missing, then show all of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/pendulum"))
    parser.add_argument("--figure", type=Path, help="where to draw the curves; FOLDER/curves.png if missing")
    options = parser.parse_args()
    table = options.folder / "table.jsonl"
    table.parent.mkdir(parents=True, exist_ok=True)
    done = read(table)
    wanted = [(kind, seed) for seed in options.seeds for kind in (*VARIANTS, "conversion")]
    for kind, seed in track([w for w in wanted if w not in done], description="runs"):
        if kind == "conversion":
            row = converted(options.folder / f"ann-{seed}", seed)
        else:
            row = trained(kind, seed, options.folder / f"{kind}-{seed}")
        with table.open("a") as file:
            file.write(json.dumps({"kind": kind, "seed": seed, **row}) + "\n")
    rows = {key: row for key, row in read(table).items() if key in wanted}
    print(text(rows))
    draw(rows, options.figure or options.folder / "curves.png")


def read(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Finished parts; a line that was cut off is none."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[row["kind"], row["seed"]] = row
    return found


def trained(kind: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train, or go on, and read what the run wrote down."""
    words = [sys.executable, "-m", "fulgurite", "fit", "--config", str(ROOT / CONFIG), *VARIANTS[kind]]
    words += ["--seed_everything", str(seed), "--trainer.default_root_dir", str(folder)]
    words += ["--trainer.enable_progress_bar", "false"]
    if (folder / "checkpoints" / "last.ckpt").exists():
        words += ["--ckpt_path", "last"]
    start = time.monotonic()
    search = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": search})
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/return")]
    curves = {
        name: [float(row[f"val/{name}"] or "nan") if row.get(f"val/{name}") else None for row in rows]
        for name in ("return", "return_std", "target_mse")
    }
    report = json.loads((folder / "report.json").read_text())
    return {
        "steps": [int(row["step"]) + 1 for row in rows],
        **curves,
        "test": report["metrics"],
        "minutes": round((time.monotonic() - start) / 60, 2),
        "hardware": report["training"]["hardware"],
    }


def converted(folder: Path, seed: int) -> dict[str, Any]:
    """Returns of the converted ANN after T steps, on the episodes of the test."""
    ann = zoo.load(str(folder / "checkpoints" / "best.ckpt")).eval()
    data = ControlDataModule(env="Pendulum-v1", seed=seed, test_episodes=EPISODES)
    data.setup("test")
    seeds = data.test_set.seeds.tolist()
    seen: list[torch.Tensor] = []

    def observed(observations: torch.Tensor) -> torch.Tensor:
        seen.append(observations)
        return act(ann, observations)

    data.play(observed, range(seed + 1, seed + 21))  # neither of the evaluation nor of the test
    calibration = torch.cat(seen)[:CALIBRATION].split(256)
    row: dict[str, Any] = {"ann": float(np.mean(data.play(lambda x: act(ann, x), seeds)[0]))}
    for method in METHODS:
        row[method] = {}
        for steps in STEPS:
            network = convert(ann, method=method, time_steps=steps, calibration=list(calibration)).eval()
            returns, _ = data.play(lambda x, n=network: act(n, x), seeds)
            row[method][str(steps)] = [float(np.mean(returns)), float(np.std(returns))]
    return row


@torch.no_grad()
def act(network: Any, observations: torch.Tensor) -> torch.Tensor:
    """Actions ``[B, A]`` for observations ``[B, D]``."""
    return network(observations)


def last_three(row: dict[str, Any]) -> float:
    """Mean return of the last three evaluations."""
    return float(np.mean(row["return"][-3:]))


def gap(row: dict[str, Any]) -> float:
    """Target against online actor, mean of the last four evaluations."""
    return float(np.mean([value for value in row["target_mse"] if value is not None][-4:]))


def text(rows: dict[tuple[str, int], dict[str, Any]]) -> str:
    """Two tables in Markdown: trainings, and conversions at every T."""
    lines = [
        "| actor | seed | last three evaluations | best | test, 50 episodes | target - online, MSE | nJ |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (kind, seed), row in sorted(
        rows.items(), key=lambda item: [*VARIANTS, "conversion"].index(item[0][0])
    ):
        if kind != "conversion":
            test = row["test"]
            lines.append(
                f"| {NAMES[kind]} | {seed} | {last_three(row):.0f} | {max(row['return']):.0f} |"
                f" {test['test/return']:.0f} ± {test['test/return_std']:.0f} | {gap(row):.3f} |"
                f" {test['test/paper_energy_mj'] * 1e6:.2f} |"
            )
    every = [row for (kind, _), row in rows.items() if kind == "conversion"]
    if every:
        lines += ["", "| converted ANN | " + " | ".join(f"T = {t}" for t in STEPS) + " | ANN |"]
        lines += ["| --- |" + " --- |" * (len(STEPS) + 1)]
        for method in METHODS:
            cells = [f"{np.mean([row[method][str(t)][0] for row in every]):.0f}" for t in STEPS]
            lines.append(f"| {method} | {' | '.join(cells)} | {np.mean([row['ann'] for row in every]):.0f} |")
    return "\n".join(lines)


def draw(rows: dict[tuple[str, int], dict[str, Any]], path: Path) -> None:
    """Mean over seeds of each evaluation, with their standard deviation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from zoo.files.atomic import replacing

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for kind, colour in zip(VARIANTS, ("#2b6cb0", "#dd6b20", "#4a5568"), strict=True):
        runs = [row for (k, _), row in rows.items() if k == kind]
        if not runs:
            continue
        steps, returns = runs[0]["steps"], np.array([row["return"] for row in runs])
        mean, spread = returns.mean(0), returns.std(0)
        left.plot(steps, mean, color=colour, label=NAMES[kind], marker="o", ms=3, lw=1.2)
        left.fill_between(steps, mean - spread, mean + spread, color=colour, alpha=0.2, lw=0)
        gaps = np.array([[np.nan if v is None else v for v in row["target_mse"]] for row in runs])
        right.plot(steps, gaps.mean(0), color=colour, label=NAMES[kind], marker="o", ms=3, lw=1.2)
    left.set(xlabel="steps in the environment", ylabel="return of an evaluation")
    right.set(xlabel="steps in the environment", ylabel="target against online actor, MSE", yscale="log")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    with replacing(path) as file:
        FigureCanvasAgg(figure).print_png(file)
    print(f"figure: {path}")


if __name__ == "__main__":
    main()
