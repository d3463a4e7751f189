"""Digits drawn token by token and at once: recognised share, passes and time, in a table that grows.

    python benchmarks/dida_digits.py [--runs DIR] [--table FILE] [--samples 100] [--images 1]

Trains the next-token model of configs/emu3_5/digits_ar.yaml, adapts it with both paths of noise
(digits_dida.yaml), and draws digits with both forms of the sampler. A run that was cut off goes on from its
last checkpoint; finished runs and rows that the table has are skipped. The judge is a support vector machine
on the training images; with 100 samples differences below 0.03 are noise. Seconds are medians of five images
drawn alone: CPU time of one thread, the reading of the prompt included. In the end it prints the table of the
documentation.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import _timing
import torch

from datamodules import CaptionedDigitsDataModule
from lightning_modules import DiDATask, NextTokenTask
from zoo.models.emu3_5.dida import Denoising

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ["images", "path", "form", "passes", "temperature", "score", "image_passes", "seconds", "loss"]
PASSES, TEMPERATURES = (4, 8, 16), (1.0, 0.6)
TIMED = 5


def trained(folder: Path, name: str, config: str, *options: str) -> Path:
    """The folder of a finished run, which is made or completed if it is not there."""
    run = folder / name
    report = run / "report.json"
    # a test before the training leaves a report, too, which is of no checkpoint
    if not report.is_file() or not json.loads(report.read_text(encoding="utf-8")).get("checkpoint"):
        goes_on = ["--ckpt_path", "last"] if (run / "checkpoints" / "last.ckpt").is_file() else []
        words = ["fit", "--config", str(ROOT / "configs" / "emu3_5" / config), *options]
        words += ["--trainer.default_root_dir", str(run), *goes_on]
        subprocess.run([sys.executable, "-m", "fulgurite", *words], check=True)
    return run


def drawn(task: NextTokenTask, data: Any, samples: int, writer: Any) -> dict[str, Any]:
    """Recognised share of digits drawn together; passes and seconds of one drawn alone."""
    texts, labels = data.questions(samples)
    prompts = torch.cat([task.prompt(text, image=True) for text in texts])
    generator = torch.Generator().manual_seed(0)
    images = task.drawn(writer.write(prompts, images=1, generator=generator))
    seconds, passes = [], 0
    for n in range(TIMED):
        begun = time.process_time()
        passes = writer.write(prompts[n : n + 1], images=1, generator=generator).image_passes
        seconds.append(time.process_time() - begun)
    return {
        "score": float((data.judge(images) == labels).mean()),
        "image_passes": passes,
        "seconds": round(statistics.median(seconds), 4),
    }


def loss_of(run: Path) -> float:
    """Nats per held-out token of the clean sequences."""
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    return round(float(report["metrics"]["test/loss"]), 4)


class Table:
    """A CSV file with one row for each way of drawing.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = set()
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                self.known = {tuple(row[key] for key in COLUMNS[:5]) for row in csv.DictReader(file)}

    def has(self, row: dict[str, Any]) -> bool:
        """Whether this way was measured already."""
        return tuple(str(row[key]) for key in COLUMNS[:5]) in self.known

    def add(self, row: dict[str, Any]) -> None:
        """Write a row at once."""
        begun = self.path.is_file()
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if not begun:
                writer.writeheader()
            writer.writerow(row)
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)

    def report(self) -> str:
        """Recognised share at both temperatures, and passes and time of one image, as Markdown."""
        with self.path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        lines: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
        for row in rows:
            kind = tuple(row[key] for key in ("images", "path", "form", "passes"))
            lines.setdefault(kind, {})[row["temperature"]] = row
        cells = []
        for (images, path, form, _), found in lines.items():
            first = next(iter(found.values()))
            shown = " / ".join(f"{float(row['score']):.2f}" for row in found.values())
            seconds = min(float(row["seconds"]) for row in found.values())
            cells.append([images, path, form, first["image_passes"], shown, f"{seconds:.3f}", first["loss"]])
        header = ["images", "path", "form", "passes", "recognised", "seconds", "nats a token"]
        return _timing.table(header, cells)


def best_of(run: Path) -> str:
    """The checkpoint that counts."""
    return str(run / "checkpoints" / "best.ckpt")


def main() -> None:
    """Train what is missing and measure what the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/dida_digits"), help="where runs are kept")
    parser.add_argument("--table", type=Path, default=ROOT / "benchmarks" / "dida_digits.csv")
    parser.add_argument("--samples", type=int, default=100, help="digits that are drawn for each row")
    parser.add_argument("--images", type=int, default=1, help="images in a training sequence")
    parser.add_argument("--paths", nargs="+", default=["metric", "mixture"], help="of the noise")
    args = parser.parse_args()
    torch.set_num_threads(1)
    table, count = Table(args.table), str(args.images)
    data = CaptionedDigitsDataModule()
    data.setup("test")
    several = ["--data.init_args.images_per_sequence", count]
    suffix = "" if args.images == 1 else f"_{count}"

    first = trained(args.runs, f"ar{suffix}", "digits_ar.yaml", *several)
    plain = {"images": count, "path": "", "form": "token by token", "passes": "", "temperature": 1.0}
    if not table.has(plain):
        task = NextTokenTask.load_from_checkpoint(best_of(first), weights_only=True).eval()
        table.add({**plain, **drawn(task, data, args.samples, task.writer()), "loss": loss_of(first)})
    for path in args.paths:
        options = [
            *several,
            "--model.init_args.path",
            path,
            "--model.init_args.model_args.weights",
            str(first),
        ]
        run = trained(args.runs, f"dida_{path}{suffix}", "digits_dida.yaml", *options)
        adapted = DiDATask.load_from_checkpoint(best_of(run), weights_only=True).eval()
        for form in ("jump", "renoise"):
            for passes in PASSES:
                for temperature in TEMPERATURES:
                    way = {"form": form, "passes": passes, "temperature": temperature}
                    row = {"images": count, "path": path, **way}
                    if not table.has(row):
                        writer = adapted.writer(denoising=Denoising(**way), path=adapted.path)
                        table.add({**row, **drawn(adapted, data, args.samples, writer), "loss": loss_of(run)})
    print(table.report())


if __name__ == "__main__":
    main()
