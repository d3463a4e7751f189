"""Run the measured configurations on real data and keep a table of what came out.

    python benchmarks/real_runs.py [NAME ...] [--table benchmarks/real_runs.csv] [--threads 1] [--list]

Each finished run is written to the table at once; called again, the script skips rows that are there, and a
run that was cut off goes on from its last checkpoint. Runs live in ``runs/real/NAME-seedN``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CIFAR = ("--data.init_args.folder", os.environ.get("CIFAR10_JPEG", "data/cifar10"))


@dataclass(frozen=True)
class Run:
    """One configuration, the seeds it is run with, and what is changed on the command line."""

    config: str
    seeds: tuple[int, ...] = (0,)
    options: tuple[str, ...] = ()


RUNS = {
    "cifar10_vit": Run("configs/ann/cifar10_jpeg_vit.yaml", options=CIFAR),
    "cifar10_resnet": Run("configs/ann/cifar10_jpeg_resnet.yaml", options=CIFAR),
    "fashion_mnist": Run("configs/stbp/fashion_mnist.yaml"),
    "cifar10_sew": Run("configs/stbp/cifar10_jpeg_sew.yaml", options=CIFAR),
    "cifar10_spikingresformer": Run("configs/spikingresformer/cifar10_jpeg.yaml", options=CIFAR),
    "qcfs_fashion_mnist": Run("configs/qcfs/fashion_mnist.yaml"),
    "qcfs_cifar10": Run("configs/qcfs/cifar10_jpeg.yaml", options=CIFAR),
    "fashion_mnist_stbp": Run("configs/stbp/fashion_mnist_short.yaml", seeds=(0, 1, 2)),
    "fashion_mnist_shortcut": Run("configs/shortcut/fashion_mnist.yaml", seeds=(0, 1, 2)),
}


def finished(table: Path) -> set[tuple[str, str]]:
    """Name and seed of the runs that the table has."""
    if not table.exists():
        return set()
    with table.open(newline="") as file:
        return {(row["name"], row["seed"]) for row in csv.DictReader(file)}


def append(table: Path, row: dict[str, object]) -> None:
    """Add one line, with the header if the file is new; columns are the keys of ``row``."""
    new = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())


def run(name: str, seed: int, threads: int) -> dict[str, object]:
    """Train and test one configuration in a process of its own; its row of the table."""
    what = RUNS[name]
    folder = ROOT / "runs" / "real" / f"{name}-seed{seed}"
    words = [sys.executable, "-m", "cli", "fit", "--config", what.config, "--seed_everything", str(seed)]
    words += [*what.options, "--trainer.default_root_dir", str(folder), "--test_after_fit", "true"]
    if (folder / "checkpoints" / "last.ckpt").exists():
        words += ["--ckpt_path", "last"]
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    clock = folder / "minutes.txt"  # of earlier, cut-off attempts
    start = time.monotonic() - 60 * (float(clock.read_text()) if clock.exists() else 0.0)
    process = subprocess.Popen(words, cwd=ROOT, env=env)
    while True:
        try:
            code = process.wait(timeout=10)
            break
        except subprocess.TimeoutExpired:
            if folder.is_dir():
                clock.write_text(f"{(time.monotonic() - start) / 60:.2f}")
    if code:
        raise SystemExit(f"{name}, seed {seed}: the run ended with status {code}; call again to go on")
    report = json.loads((folder / "report.json").read_text())
    return {
        "name": name,
        "config": what.config,
        "seed": seed,
        "options": " ".join(o for o in what.options if not o.startswith(("/", "data/"))),
        "test_acc1": f"{report['metrics']['test/acc1']:.4f}",
        "minutes": f"{(time.monotonic() - start) / 60:.1f}",
        "threads": threads,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    """Do what is missing from the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(RUNS)}")
    parser.add_argument("--table", type=Path, default=ROOT / "benchmarks" / "real_runs.csv")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--list", action="store_true", help="say what would be run, and stop")
    args = parser.parse_args()
    for name in args.names:
        if name not in RUNS:
            parser.error(f"unknown run {name!r}; known: {', '.join(RUNS)}")
    done = finished(args.table)
    todo = [(n, s) for n in args.names or RUNS for s in RUNS[n].seeds if (n, str(s)) not in done]
    if args.list:
        print("\n".join(f"{name} seed {seed}" for name, seed in todo) or "nothing left to run")
        return
    for name, seed in todo:
        append(args.table, run(name, seed, args.threads))


if __name__ == "__main__":
    main()
