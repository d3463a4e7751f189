"""UP-Diff on made-up cities: how often the planned city is built, and what makes it better at equal budget.

    python benchmarks/up_diff_cities.py [--recipes NAME ...] [--seeds 0 1 2] [--folder runs/cities]

Trains ``configs/up_diff/tiny.yaml``, or what a recipe changes about it, for every seed, unless FOLDER holds
that run; one that was killed goes on with its last checkpoint. Then the 128 test samples are generated; for
the first seed also in other ways (``--chains``). Each row is printed and added to FOLDER/table.jsonl at once,
and what is there is not computed again. In the end it prints the whole table. ``--budget 100 --samples 24
--chains plain`` shows within some minutes what a twelfth of the steps is worth; give it a folder of its own.

*Inside* counts changed pixels that are right, building or ground by the mean of their channels; *swapped*
shows each sample the map of the next one: pixels that only the new map marks, right if they are what the new
map plans; *worst tenth* is the PSNR that nine of ten images exceed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import _timing
import torch
from rich.progress import Progress

from datamodules import SyntheticCitiesDataModule
from lightning_modules import LatentDiffusionTask
from lightning_modules.callbacks.pair_writer import gallery, write_image
from lightning_modules.change_scores import building_scores, image_scores
from zoo.models.up_diff import sample

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "up_diff" / "tiny.yaml"
ARGS = "--model.init_args"
RECIPES = {
    "tiny.yaml": [],
    "noise, as published": [f"{ARGS}.model_args.prediction", "epsilon"],
    "zero layout_init": [f"{ARGS}.model_args.layout_init", "zero"],
    "snr_gamma 5": [f"{ARGS}.snr_gamma", "5"],
    "averaged weights": [
        "--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging",
        "--trainer.callbacks.decay",
        "0.995",
    ],
}
LONGER = "twice the steps"
BUDGET = 1200  # steps
PLAIN: dict[str, Any] = {"sampler": "plms", "steps": 20, "guidance": 1.0}
CHAINS: dict[str, dict[str, Any]] = {
    "plain": {},  # PLMS, 20 steps
    "guidance 2": {"guidance": 2.0},
    "plms, 50 steps": {"steps": 50},
    "ddim": {"sampler": "ddim"},
    "dpm": {"sampler": "dpm"},
}
TITLES = {
    "inside": "inside right", "iou": "IoU inside", "all": "all right", "psnr": "PSNR", "worst": "worst tenth",
    "ssim": "SSIM", "swapped": "swapped right",
}  # fmt: skip
THRESHOLD = 0.1


def main() -> None:
    """Do what is missing, then show all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    known = [*RECIPES, LONGER]
    parser.add_argument("--recipes", nargs="+", default=known, choices=known, metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--chains", nargs="+", default=list(CHAINS), choices=list(CHAINS), metavar="NAME")
    parser.add_argument("--budget", type=int, default=BUDGET, help="training steps")
    parser.add_argument("--samples", type=int, default=128, help="test samples")
    parser.add_argument("--folder", type=Path, default=Path("runs/cities"))
    parser.add_argument("--sheet", type=Path, help="where to draw samples; FOLDER/samples.png if missing")
    args = parser.parse_args()
    table = args.folder / "table.jsonl"
    table.parent.mkdir(parents=True, exist_ok=True)
    data = SyntheticCitiesDataModule(test_samples=args.samples, eval_batch_size=args.samples)
    data.setup()
    batch: Any = next(iter(data.test_dataloader()))
    done = read(table)
    if ("copy of A", "", "") not in done:
        write(table, done, ("copy of A", "", ""), judged(batch["before"], batch))
    for recipe in args.recipes:
        for seed in args.seeds:
            chains = args.chains if seed == args.seeds[0] else args.chains[:1]
            wanted = [key for chain in chains if (key := (recipe, str(seed), chain)) not in done]
            if not wanted:
                continue
            folder = args.folder / recipe.replace(" ", "_") / f"seed{seed}"
            last = trained(folder, recipe, seed, args.budget)
            for key in wanted:
                sheet = args.sheet or args.folder / "samples.png"
                keep = sheet if key == ("tiny.yaml", "0", "plain") else None
                write(table, done, key, scores(last, key[2], batch, keep))
    rows = [[*key, *cells(found)] for key, found in done.items()]
    print("\n" + _timing.table(["recipe", "seed", "sampling", *TITLES.values()], rows))


def read(table: Path) -> dict[tuple[str, str, str], dict[str, float]]:
    """The rows that are there."""
    lines = table.read_text().splitlines() if table.exists() else []
    found = (json.loads(line) for line in lines)
    return {(row["recipe"], row["seed"], row["sampling"]): row["scores"] for row in found}


def write(table: Path, done: dict[Any, Any], key: tuple[str, str, str], found: dict[str, float]) -> None:
    """Keep a row and show it."""
    done[key] = found
    row = {**dict(zip(("recipe", "seed", "sampling"), key, strict=True)), "scores": found}
    with table.open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
    print(
        *key,
        *(f"{title} {cell}" for title, cell in zip(TITLES.values(), cells(found), strict=True)),
        sep=" | ",
    )


def cells(found: dict[str, float]) -> list[str]:
    """The scores of a row as a table shows them."""
    forms = {"psnr": "{:.1f} dB", "worst": "{:.1f} dB", "ssim": "{:.2f}"}
    return [forms.get(name, "{:.3f}").format(found[name]) if name in found else "" for name in TITLES]


def trained(folder: Path, recipe: str, seed: int, budget: int) -> Path:
    """The last checkpoint of a run; trains it, or goes on, where it is not complete."""
    run = folder.resolve()
    last = run / "checkpoints" / "last.ckpt"
    steps = 2 * budget if recipe == LONGER else budget
    if not last.exists() or torch.load(last, weights_only=True)["global_step"] < steps:
        words = [sys.executable, "-m", "cli", "fit", "--config", str(CONFIG), *RECIPES.get(recipe, [])]
        words += ["--seed_everything", str(seed), "--trainer.default_root_dir", str(run)]
        words += ["--trainer.max_steps", str(steps), "--trainer.val_check_interval", str(max(1, steps // 3))]
        words += ["--test_after_fit", "false", *(["--ckpt_path", "last"] if last.exists() else [])]
        search = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": search})
    return last


def scores(checkpoint: Path, chain: str, batch: Any, sheet: Path | None) -> dict[str, float]:
    """What a model makes of the test samples; draws a sheet of the first ones where it is asked to."""
    task = LatentDiffusionTask.load_from_checkpoint(checkpoint)
    model, (before, change) = task.model.eval(), (batch["before"], batch["change"])

    def made_with(maps: torch.Tensor) -> torch.Tensor:
        with Progress(transient=True) as bar:
            steps = bar.add_task(chain)
            return sample(
                model, before, maps, **{**PLAIN, **CHAINS[chain]}, generator=torch.Generator().manual_seed(0),
                progress=lambda done, total: bar.update(steps, completed=done, total=total),
            )  # fmt: skip

    made, other = made_with(change), change.roll(1, 0)
    if sheet is not None:
        write_image(gallery(before, change, made), sheet)
    swapped = made_with(other)
    fresh = (other > 0) & (change < 0)  # planned now and not before: buildings go, ground is built on
    planned = before.mean(1, keepdim=True) <= THRESHOLD
    right = ((swapped.mean(1, keepdim=True) > THRESHOLD) == planned)[fresh].float().mean()
    return {**judged(made, batch), "swapped": float(right)}


def judged(made: torch.Tensor, batch: Any) -> dict[str, float]:
    """Scores of images that any method made of the samples."""
    found = building_scores(made, batch["after"], batch["change"], THRESHOLD)
    whole = image_scores(made, batch["after"])
    pairs = zip(made.split(1), batch["after"].split(1), strict=True)
    each = torch.stack([image_scores(*pair)["psnr"] for pair in pairs])
    return {
        "inside": float(found["inside_acc"][0]), "iou": float(found["building_iou"][0]),
        "all": float(found["pixel_acc"][0]), "psnr": float(whole["psnr"]),
        "worst": float(each.quantile(0.1)), "ssim": float(whole["ssim"]),
    }  # fmt: skip


if __name__ == "__main__":
    main()
