"""MNIST end to end: a tokenizer, a next-token model of its codes, and DiDA; a table and a sheet of pictures.

    python benchmarks/dida_mnist5k.py [--runs runs] [--samples 100] [--sheet FILE]

Trains configs/emu3_5/ibq_mnist5k.yaml, mnist5k_ar.yaml and mnist5k_dida.yaml, unless their runs are
complete; one that was cut off goes on from its last checkpoint. The sheet has a row of held-out digits, one
of each, one of what the tokenizer makes of them, and one each of digits drawn token by token and at once.
The judge is a support vector machine on the training images; with 100 samples differences below 0.03 are
noise.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import _timing
import torch
from dida_digits import best_of, drawn, loss_of, trained
from PIL import Image
from torch import Tensor

import zoo
from datamodules import CaptionedMNIST5kDataModule
from lightning_modules import DiDATask, NextTokenTask
from lightning_modules.callbacks.pair_writer import write_image

SCALE, GAP = 2, 4  # of the sheet, in pixels


def sheet(rows: list[Tensor]) -> Image.Image:
    """Rows of grey images ``[10, 1, H, W]`` in [0, 1], one below the other."""
    strips = [
        torch.nn.functional.pad(row.clamp(0, 1), (0, GAP, 0, GAP), value=1.0)
        .squeeze(1)
        .transpose(0, 1)
        .flatten(1)
        for row in (row.repeat_interleave(SCALE, 2).repeat_interleave(SCALE, 3) for row in rows)
    ]
    return Image.fromarray((torch.cat(strips) * 255).round().byte().numpy())


def main() -> None:
    """Train what is missing, print the table, draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept")
    parser.add_argument("--samples", type=int, default=100, help="digits that are drawn for each row")
    parser.add_argument("--sheet", type=Path, help="where to draw; RUNS/mnist5k.png if missing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = [
        trained(args.runs, f"emu3_5-{name}", f"{name}.yaml", "--test_after_fit", "true")
        for name in ("ibq_mnist5k", "mnist5k_ar", "mnist5k_dida")
    ]
    data = CaptionedMNIST5kDataModule()
    data.setup("test")
    tokenizer: Any = zoo.load(str(runs[0])).eval()
    by_token, adapted = (
        kind.load_from_checkpoint(best_of(run), weights_only=True).eval()
        for kind, run in zip((NextTokenTask, DiDATask), runs[1:], strict=True)
    )
    found = json.loads((runs[0] / "report.json").read_text(encoding="utf-8"))["metrics"]
    print(f"tokenizer: {found['test/psnr']:.2f} dB, {found['test/codes_used']:.0%} of its codes used")
    rows = []
    ways: list[tuple[str, Any, Any]] = [
        ("next-token model, token by token", by_token, by_token.writer()),
        ("adapted, token by token", adapted, adapted.writers()[""]),
        ("adapted, at once", adapted, adapted.writers()["dida_"]),
    ]
    for (label, task, writer), run in zip(ways, (runs[1], runs[2], runs[2]), strict=True):
        seen = drawn(task, data, args.samples, writer)
        rows.append(
            [label, seen["image_passes"], f"{seen['score']:.2f}", f"{seen['seconds']:.3f}", loss_of(run)]
        )
    print(_timing.table(["way", "passes", "recognised", "seconds", "nats a token"], rows))
    images = torch.from_numpy(data.test_set.images)
    first = torch.tensor([int((torch.from_numpy(data.test_set.labels) == n).nonzero()[0]) for n in range(10)])
    with torch.no_grad():
        back = (tokenizer.decode_code(tokenizer.encode(images[first] * 2 - 1)) + 1) / 2
    prompts = torch.cat([adapted.prompt(f"digit {n}", image=True) for n in range(10)])
    made = [
        adapted.drawn(writer.write(prompts, images=1, generator=torch.Generator().manual_seed(1)))
        for _, _, writer in ways[1:]
    ]
    path = args.sheet or args.runs / "mnist5k.png"
    write_image(sheet([images[first], back, *made]), path)
    print(f"written: {path}")


if __name__ == "__main__":
    main()
