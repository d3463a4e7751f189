"""USP-Gaussian and its parts on made-up scenes: trains every variant, row by row, and draws the pictures.

`python benchmarks/usp_gaussian.py` appends what is missing to ``usp_gaussian.csv``: a run that was cut off is
taken up by the same command. Settings are those of ``configs/usp_gaussian/synthetic.yaml``. At the end it
prints the table and how the method's claims fare, and writes ``docs/figures/usp_gaussian.png``.
"""

from __future__ import annotations

import argparse
import csv
import logging
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from matplotlib.figure import Figure
from real_runs import ROOT, append

import datamodules
from lightning_modules import ResumableState, SpikeReconstructionTask, figures
from lightning_modules.scene_imaging import exposures
from spiking import camera
from zoo.files.atomic import replacing

CONFIG = ROOT / "configs" / "usp_gaussian" / "synthetic.yaml"
TABLE = ROOT / "benchmarks" / "usp_gaussian.csv"
FIGURE = ROOT / "docs" / "figures" / "usp_gaussian.png"
IMAGES = ROOT / "runs" / "usp_gaussian"
NOISE = (0.05, 0.01)  # of the first poses: translation, rotation in radians
SPIKING = {"neuron": "lif", "time_steps": 4}
VARIANTS: dict[str, dict[str, Any]] = {
    "static": {"mode": "static"},
    "gs_only": {"mode": "gs_only"},
    "recon_only": {"mode": "recon_only"},
    "joint": {"mode": "joint"},
    "static, noisy poses": {"mode": "static", "noise": NOISE},
    "joint, noisy poses": {"mode": "joint", "noise": NOISE},
    "joint, spiking Recon-Net": {"mode": "joint", "recon_net": SPIKING},
}
COLUMNS = ("psnr", "psnr_sequence", "recon_psnr", "recon_psnr_sequence", "ssim", "tfp_psnr", "short_tfp_psnr")
CLAIMS = (  # text, variant, column, other variant, other column, at least so many dB more
    ("joint rendering above static", "joint", "psnr", "static", "psnr", 4.0),
    ("joint Recon-Net above recon_only", "joint", "recon_psnr", "recon_only", "recon_psnr", 0.4),
    ("joint sequence above gs_only", "joint", "psnr_sequence", "gs_only", "psnr_sequence", 0.3),
    ("joint with noisy poses against joint", "joint, noisy poses", "psnr", "joint", "psnr", -1.0),
)


def settings() -> dict[str, Any]:
    """The shipped configuration."""
    found: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    return found


def do(variant: str, seed: int) -> dict[str, Any]:
    """Train and test one variant; its row."""
    config, change = settings(), dict(VARIANTS[variant])
    options = {**config["model"]["init_args"], "mode": change["mode"]}
    if "recon_net" in change:
        arguments = options["model_args"]
        options["model_args"] = {**arguments, "recon_net": {**arguments["recon_net"], **change["recon_net"]}}
    pl.seed_everything(seed, workers=True, verbose=False)
    data = datamodules.SyntheticSpikeSceneDataModule(
        **{**config["data"]["init_args"], "scene_seed": seed}, pose_noise=change.get("noise", (0.0, 0.0))
    )
    task = SpikeReconstructionTask(**options)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=config["trainer"]["max_steps"],
        limit_val_batches=0,
        callbacks=[ResumableState()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=IMAGES,
    )
    begun = time.monotonic()
    trainer.fit(task, datamodule=data)
    seconds = time.monotonic() - begun
    scores = trainer.test(task, datamodule=data, verbose=False)[0]
    keep_images(task, data, IMAGES / f"{variant}-{seed}.pt")
    found = {name: scores.get(f"test/{name}") for name in COLUMNS}
    if change["mode"] == "recon_only":
        found |= {"psnr": None, "psnr_sequence": None, "ssim": None}  # nothing is rendered
    return {
        "variant": variant,
        "seed": seed,
        **{name: "" if value is None else f"{value:.3f}" for name, value in found.items()},
        "seconds": f"{seconds:.1f}",
        "threads": torch.get_num_threads(),
        "date": time.strftime("%Y-%m-%d"),
    }


@torch.no_grad()
def keep_images(task: SpikeReconstructionTask, data: Any, path: Path) -> None:
    """Intensities of the first view at the virtual times, by kind."""
    batch = next(iter(data.test_dataloader()))
    exposure, task = exposures(batch)[0], task.eval()
    made, factor = task(exposure, task.frames), 1 / camera.RATE
    known = batch["sharp_frames"][0].tolist()
    half = camera.SHORT // 2
    kinds = {
        "truth": batch["sharp"][0][[known.index(frame) for frame in task.frames]],
        "exposure": factor * camera.tfp(exposure.spikes).expand(len(task.frames), -1, -1),
        "short": factor * torch.stack([camera.tfp(exposure.spikes, f - half, f + half) for f in task.frames]),
        "rendered": None if made.grey is None else factor * made.grey,
        "reconstructed": None if made.reconstructed is None else factor * made.reconstructed,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        torch.save({k: v.clone() for k, v in kinds.items() if v is not None}, file)


def rows(table: Path) -> list[dict[str, str]]:
    """What the table has."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def show(found: list[dict[str, str]]) -> None:
    """Print the table and the claims."""
    seeds = sorted({int(row["seed"]) for row in found})
    values = {(row["variant"], int(row["seed"])): row for row in found}
    head = ["variant", *(f"seed {seed}: render mid / seq / recon mid" for seed in seeds)]
    print("| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |", sep="\n")

    def cell(row: dict[str, str], names: tuple[str, ...]) -> str:
        return " / ".join(f"{float(row[name]):.1f}" if name and row.get(name) else "-" for name in names)

    def line(label: str, variant: str, names: tuple[str, ...]) -> None:
        cells = [cell(values.get((variant, seed), {}), names) for seed in seeds]
        print("| " + " | ".join([label, *cells]) + " |")

    line("long exposure (TFP)", "static", ("tfp_psnr", "", ""))
    line("mean of 41 frames (TFP)", "static", ("short_tfp_psnr", "", ""))
    for variant in VARIANTS:
        line(variant, variant, ("psnr", "psnr_sequence", "recon_psnr"))
    print()
    for text, a, column, b, other, least in CLAIMS:
        pairs = [(values.get((a, seed)), values.get((b, seed))) for seed in seeds]
        gains = [float(x[column]) - float(y[other]) for x, y in pairs if x and y]
        if gains:
            told = ", ".join(f"{gain:+.2f}" for gain in gains)
            print(f"{text}: {told} dB; asked for: {least:+.1f} {'met' if min(gains) >= least else 'MISSED'}")


def draw(seed: int = 0) -> None:
    """The first view of one seed at all virtual times, one row a method."""
    lines = (
        ("true", "joint", "truth"),
        ("41 frames", "joint", "short"),
        ("97 frames", "joint", "exposure"),
        ("static", "static", "rendered"),
        ("gs_only", "gs_only", "rendered"),
        ("recon_only", "recon_only", "reconstructed"),
        ("joint:\nrendered", "joint", "rendered"),
        ("joint:\nRecon-Net", "joint", "reconstructed"),
    )
    stored = {name: torch.load(IMAGES / f"{name}-{seed}.pt", weights_only=True) for _, name, _ in lines}
    count = len(stored["joint"]["truth"])
    figure = Figure(figsize=(1.35 * len(lines), 1.02 * count), layout="constrained")
    axes = figure.subplots(count, len(lines))
    for column, (label, variant, kind) in enumerate(lines):
        images = stored[variant][kind].clamp(0, 1)
        truth = stored["joint"]["truth"]
        if (images.flip(0) - truth).square().mean() < (images - truth).square().mean():
            images = images.flip(0)  # a blur does not tell the direction of time
        axes[0, column].set_title(label, fontsize=9)
        for row in range(count):
            axes[row, column].imshow(images[row], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes[row, column].set_axis_off()
    figures.save(figure, FIGURE)


def main() -> None:
    """Do what is missing from the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    done = {(row["variant"], int(row["seed"])) for row in rows(args.table)}
    for seed in args.seeds:
        for variant in args.only:
            if (variant, seed) not in done:
                append(args.table, row := do(variant, seed))
                print(row, flush=True)
    show(rows(args.table))
    if args.table == TABLE:
        draw()


if __name__ == "__main__":
    main()
