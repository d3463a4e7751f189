"""UP-Diff on made-up cities: trains seeds, and says how often the planned city is built.

    python benchmarks/up_diff_cities.py [--seeds 0 1 2] [--guidance 1 2] [--folder runs/cities] [--steps N]

Trains ``configs/up_diff/tiny.yaml`` for every seed, unless FOLDER holds that run; one that was killed goes on
with its last checkpoint. Then 128 test samples are generated at each guidance. *Inside* counts changed pixels
that are right, building or ground by the mean of their channels; *swapped* shows each sample the map of the
next one: pixels that only the new map marks, right if they are what the new map plans.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import _timing
import torch

from cli.main import main as fulgurite
from datamodules import SyntheticCitiesDataModule
from lightning_modules import LatentDiffusionTask
from lightning_modules.callbacks.pair_writer import gallery, write_image
from lightning_modules.change_scores import building_scores, image_scores
from zoo.models.up_diff import sample

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "up_diff" / "tiny.yaml"
THRESHOLD = 0.1


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--folder", type=Path, default=Path("runs/cities"))
    parser.add_argument("--steps", type=int, default=20, help="of the sampling chain")
    args = parser.parse_args()
    data = SyntheticCitiesDataModule(eval_batch_size=128)
    data.setup()
    batch: Any = next(iter(data.test_dataloader()))
    rows = []
    for seed in args.seeds:
        model = LatentDiffusionTask.load_from_checkpoint(
            trained(args.folder.resolve() / f"seed{seed}", seed)
        ).model.eval()
        rows += [[seed, f"{g:g}", *scores(model, batch, g, args)] for g in args.guidance]
    titles = ["seed", "guidance", "inside right", "IoU inside", "all right", "PSNR", "swapped right"]
    print(_timing.table(titles, rows))


def trained(folder: Path, seed: int) -> Path:
    """The last checkpoint of a seed; trains it, or goes on, where it is not complete."""
    folder.mkdir(parents=True, exist_ok=True)
    last = next(iter(folder.glob("runs/*/checkpoints/last.ckpt")), None)
    if last is None or not list(folder.glob("runs/*/report.json")):
        here = Path.cwd()
        os.chdir(folder)  # run folders are made below the current one
        words = ["fit", "--config", str(CONFIG), "--seed_everything", str(seed)]
        fulgurite([*words, *(["--ckpt_path", "last"] if last is not None else [])])
        os.chdir(here)
    return next(iter(folder.glob("runs/*/checkpoints/last.ckpt")))


def scores(model: Any, batch: Any, guidance: float, args: argparse.Namespace) -> list[str]:
    """The cells of a row; also writes a sheet of the first samples beside the runs."""
    before, change, after = batch["before"], batch["change"], batch["after"]

    def made_with(maps: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return sample(model, before, maps, steps=args.steps, guidance=guidance, generator=generator)

    made, other = made_with(change), change.roll(1, 0)
    write_image(gallery(before, change, made), args.folder / f"samples_g{guidance:g}.png")
    found = building_scores(made, after, change, THRESHOLD)
    swapped = made_with(other)
    fresh = (other > 0) & (change < 0)  # planned now and not before: buildings go, ground is built on
    planned = before.mean(1, keepdim=True) <= THRESHOLD
    right = ((swapped.mean(1, keepdim=True) > THRESHOLD) == planned)[fresh].float().mean()
    cells = [f"{float(found[name][0]):.3f}" for name in ("inside_acc", "building_iou", "pixel_acc")]
    return [*cells, f"{float(image_scores(made, after)['psnr']):.1f} dB", f"{float(right):.3f}"]


if __name__ == "__main__":
    main()
