"""Networks for events: accuracy, energy and the latency of a chunk, in one table.

    OMP_NUM_THREADS=1 python benchmarks/event_networks.py [NAME ...] [--nmnist FOLDER] [--samples 100]

Trains what is missing in ``runs/events``, goes on where a run was cut off, and streams test samples through
each network, a frame a chunk, from fresh neurons. The folder of N-MNIST's recordings may be any part of them
with lists, see `NMNISTDataModule`. Latency is the wall time from a frame to its logits, without the counting.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _timing
import torch
import yaml
from _interval import interval

import datamodules
import zoo
from cli.stream.player import Latencies, play
from cli.stream.sources import Step

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).resolve().parents[1]
RUNS = {  # name: title, configuration
    "nmnist": ("N-MNIST, 1,100 recordings", "configs/stbp/nmnist.yaml"),
    "mnist5k_events": ("MNIST-5k as simulated events", "configs/stbp/mnist5k_events.yaml"),
    "speech": ("made-up spoken digits", "configs/delay_snn/speech_nano.yaml"),
}


def finished(config: str, options: list[str]) -> Path:
    """The folder of a run, which is trained if it is not there."""
    path = Path(config)
    folder = ROOT / "runs" / "events" / f"{path.parent.name}-{path.stem}"
    if not (folder / "report.json").is_file():
        words = [sys.executable, "-m", "cli", "fit", "--config", config, *options]
        words += ["--trainer.default_root_dir", str(folder), "--test_after_fit", "true"]
        if (folder / "checkpoints" / "last.ckpt").is_file():
            words += ["--ckpt_path", "last"]
        subprocess.run(words, cwd=ROOT, check=True)
    return folder


def test_samples(folder: Path, count: int) -> torch.Tensor:
    """The first test samples of a run's data, ``[N, T, C, H, W]``."""
    data = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["data"]
    arguments: dict[str, Any] = {**data["init_args"], "eval_batch_size": count, "num_workers": 0}
    module = getattr(datamodules, data["class_path"].rpartition(".")[2])(**arguments)
    module.prepare_data()
    module.setup("test")
    x: torch.Tensor = next(iter(module.test_dataloader()))[0]
    return x


def latencies_of(model: nn.Module, samples: torch.Tensor) -> Latencies:
    """Of every frame, one sample after another."""
    found = Latencies()
    for number, frames in enumerate(samples):
        steps = (Step(frame.unsqueeze(0), 0, t) for t, frame in enumerate(frames))
        for seen in play(model, steps):
            if number:  # the first sample warms up
                found.add(seen.latency)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(RUNS)}")
    parser.add_argument("--nmnist", type=Path, default=Path("data/nmnist"), help="folder of the recordings")
    parser.add_argument("--samples", type=int, default=100, help="that are streamed (default 100)")
    args = _timing.arguments(parser)
    for name in args.names:
        if name not in RUNS:
            parser.error(f"unknown run {name!r}; known: {', '.join(RUNS)}")
    print(_timing.environment(args, "numpy"), end="\n\n")
    rows = []
    for name in args.names or RUNS:
        title, config = RUNS[name]
        options = ["--data.init_args.root", str(args.nmnist.resolve())] if name == "nmnist" else []
        folder = finished(config, options)
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        metrics, samples = report["metrics"], report["measured"]["samples"]
        low, high = interval(metrics["test/acc1"], samples)
        model = zoo.load(str(folder))
        seen = latencies_of(model, test_samples(folder, args.samples))
        rows.append(
            [
                title,
                f"`{report['model']}`",
                model.time_steps,
                f"{metrics['test/acc1']:.2%} of {samples:,}",
                f"{low:.1%} to {high:.1%}",
                f"{1e3 * metrics['test/energy_mj']:.2f}",
                f"{1e3 * seen.quantile(0.5):.2f}",
                f"{1e3 * seen.quantile(0.99):.2f}",
            ]
        )
    head = ["data", "network", "T", "test accuracy", "95 % interval", "energy, uJ"]
    print(_timing.table([*head, "chunk, ms: median", "99 %"], rows))


if __name__ == "__main__":
    main()
