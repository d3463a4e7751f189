"""Passes and time of an image drawn token by token and at once, against the number of its tokens.

    python benchmarks/dida.py [--table FILE] [--tokens 64 256 1024] [--passes 8 25] [--rounds 3]

The network is emu3_5_tiny with 512 image codes and random weights, which cost what trained ones cost. An
image of as many tokens and two words stand before the one that is drawn, as in an interleaved document, so
that there is a prefix to remember. Timed is the CPU time of one thread from the prompt to the image, the
reading of the prefix included, batch 1; medians of the rounds. Without the cache every pass reads the prefix
again. Rows are written to the table as soon as they are measured, and rows that it has are skipped.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from _timing import arguments, environment, table

import zoo
from zoo.models.emu3_5.decoding import Grammar, Writer
from zoo.models.emu3_5.dida import Denoising, MetricPath
from zoo.models.emu3_5.sequences import image_block

ROOT = Path(__file__).resolve().parents[1]
CODES, WIDTH = 512, 16
MOST_REREAD = 256  # tokens
COLUMNS = ["tokens", "way", "cache", "passes", "image_passes", "seconds", "rounds"]


def document(model: Any, side: int) -> torch.Tensor:
    """Two words, an image, two words and the start of the image that is to be drawn, ``[1, L]``."""
    v = model.vocabulary
    codes = torch.randint(CODES, (1, side, side), generator=torch.Generator().manual_seed(0))
    first = image_block(v, codes)[0].tolist()
    return torch.tensor([[v.bos, *v.encode("digit 3"), *first, *v.encode("digit 7"), v.image_start]])


def timed(writer: Any, prompt: torch.Tensor, rounds: int) -> dict[str, Any]:
    """CPU seconds and passes of one image."""
    seconds, passes = [], 0
    for number in range(rounds):
        begun = time.process_time()
        made = writer.write(prompt, images=1, generator=torch.Generator().manual_seed(number))
        seconds.append(time.process_time() - begun)
        passes = made.image_passes
    return {"image_passes": passes, "seconds": round(statistics.median(seconds), 4), "rounds": rounds}


def ways(passes: list[int], count: int) -> list[dict[str, Any]]:
    """What is compared; token by token without a cache only where it takes seconds."""
    by_token = [{"way": "AR", "cache": cache, "passes": ""} for cache in ("on", "off")]
    at_once = [{"way": "DiDA", "cache": cache, "passes": n} for cache in ("on", "off") for n in passes]
    return by_token[: 1 if count > MOST_REREAD else 2] + at_once


def rows_of(path: Path) -> list[dict[str, str]]:
    """What was measured before."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def add(path: Path, row: dict[str, Any]) -> None:
    """Write a row at once."""
    begun = path.is_file()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not begun:
            writer.writeheader()
        writer.writerow(row)
    print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)


def report(rows: list[dict[str, str]]) -> str:
    """Passes and seconds of every way; in brackets how many times fewer than AR with the cache."""
    counts = sorted({int(row["tokens"]) for row in rows})
    measured = {(row["way"], row["passes"], row["cache"], int(row["tokens"])): row for row in rows}
    kinds = sorted(
        {key[:3] for key in measured}, key=lambda kind: (kind[0], kind[2] != "on", int(kind[1] or 0))
    )
    lines = []
    for kind in kinds:
        cells = []
        for count in counts:
            first, here = measured.get(("AR", "", "on", count)), measured.get((*kind, count))
            if first is None or here is None:
                cells.append("")
                continue
            fewer = int(first["image_passes"]) / int(here["image_passes"])
            faster = float(first["seconds"]) / float(here["seconds"])
            cells.append(
                f"{here['image_passes']} ({fewer:.1f}), {float(here['seconds']):.3f} s ({faster:.1f})"
            )
        lines.append([kind[0], kind[2], *cells])
    return table(["way", "cache", *(f"{count:,} tokens" for count in counts)], lines)


def main() -> None:
    """Measure what the table lacks, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path, default=ROOT / "benchmarks" / "dida.csv")
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 256, 1024], help="squares")
    parser.add_argument("--passes", type=int, nargs="+", default=[8, 25])
    parser.add_argument("--rounds", type=int, default=3)
    args = arguments(parser)
    torch.set_num_threads(1)
    print(environment(args, "transformers"), flush=True)
    torch.manual_seed(0)
    model: Any = zoo.create("emu3_5_tiny", visual_codes=CODES, context=4096).eval()
    path = MetricPath(torch.randn(CODES, WIDTH))
    known = {tuple(row[key] for key in COLUMNS[:4]) for row in rows_of(args.table)}
    for count in args.tokens:
        side = math.isqrt(count)
        grammar = Grammar(vocabulary=model.vocabulary, grid=(side, side), limit=model.context)
        prompt = document(model, side)
        for way in ways(args.passes, count):
            row = {"tokens": count, **way}
            if tuple(str(row[key]) for key in COLUMNS[:4]) in known:
                continue
            how: dict[str, Any] = {"cache": way["cache"] == "on"}
            if way["way"] == "DiDA":
                how |= {"denoising": Denoising(passes=way["passes"]), "path": path}
            writer = Writer(model.decoder, grammar, **how)
            add(args.table, {**row, **timed(writer, prompt, args.rounds)})
    print(report(rows_of(args.table)))


if __name__ == "__main__":
    main()
