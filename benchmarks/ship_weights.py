"""Put a finished run, or a conversion, into the package, with all that was written down about it.

After ``fulgurite fit --config stbp/mnist5k``: ``python benchmarks/ship_weights.py runs/stbp-mnist5k
mnist5k_t4``; after ``fulgurite convert``, its folder in place of the run's.

Weights that float16 holds exactly are stored so, in half the space. ``python benchmarks/ship_weights.py
RUN --round`` rounds those of the best checkpoint; ``fulgurite test --config CONFIG --ckpt_path best`` then
measures what is going to be shipped, and conversions of the run start from it.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

import zoo
from cli.run.package import export_run
from cli.run.resume import BEST, CHECKPOINTS
from zoo.files.atomic import replacing
from zoo.files.description import read_description
from zoo.files.folder import Content, write_folder
from zoo.files.layout import SETTINGS_FILE

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 2_000_000  # bytes, as .pre-commit-config.yaml has it; larger weights belong on a hub


def round_best(run: Path) -> None:
    """Round the network of a run's best checkpoint to numbers that float16 holds."""
    path = run / CHECKPOINTS / BEST
    content = torch.load(path, weights_only=True)
    state = content["state_dict"]
    content["state_dict"] = {k: v.half().float() if v.is_floating_point() else v for k, v in state.items()}
    with replacing(path) as file:
        torch.save(content, file)


def pack(folder: Path, target: Path, limits: str | None) -> None:
    """Write a folder of the zoo once more, compactly and without figures, with all that it tells."""
    described = read_description(folder)
    told = described.recorded
    settings = (folder / SETTINGS_FILE).read_text(encoding="utf-8") if told.settings else None
    content = Content(
        description=replace(described, record=replace(told, licence="Apache-2.0", limits=limits)),
        state=zoo.load(f"local-dir:{folder}").state_dict(),
        settings=settings,
        compact=True,
    )
    write_folder(target, content)


def main() -> None:
    """Write under ``zoo/weights`` and load back from there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path, help="the folder of a run, or of a conversion, with report.json")
    parser.add_argument("tag", nargs="?", help="what the weights are called, NAME.TAG")
    parser.add_argument("--round", action="store_true", help="round the run's best checkpoint, and stop")
    parser.add_argument("--limits", help="a sentence for the card: what users must know beyond what it says")
    args = parser.parse_args()
    if args.round:
        round_best(args.source)
        return
    if args.tag is None:
        parser.error("the tag is missing, under which the weights are to be shipped")
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.source
        if (folder / CHECKPOINTS).is_dir():
            folder = export_run(folder, Path(scratch) / "folder", figures=False)
        described = read_description(folder)
        name = f"{described.architecture}.{args.tag}"
        target = ROOT / "zoo" / "weights" / name
        pack(folder, target, args.limits)
    size = (target / "model.safetensors").stat().st_size
    if size > LARGEST:
        shutil.rmtree(target)
        raise SystemExit(f"{target} would hold {size:,} bytes; only weights under {LARGEST:,} ship")
    zoo.load(name, pretrained=True)
    print(f"{target}: {size:,} bytes, test accuracy {described.recorded.metrics['test/acc1']:.2%}")


if __name__ == "__main__":
    main()
