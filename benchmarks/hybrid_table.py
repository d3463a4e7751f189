"""Direct training, conversion and hybrid training with one backbone, in a table that grows row by row.

    python benchmarks/hybrid_table.py [mnist5k] [cifar10] [--table FILE] [--threads 1] [--list]

A small network is trained with LIF neurons (plain and with shortcuts) and with LM-HT neurons, and as a QCFS
network; that one, the same for a seed, is converted and also goes on as an LM-HT network (hybrid training)
or as a converted network (fine-tuning). All train for the same number of epochs, those that go on for some
more. Nothing is chosen by test accuracy: the last weights count. Each finished run is written at once, and
rows that the table has are skipped.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from real_runs import ROOT, append

import datamodules
import zoo
from lightning_modules import ClassificationTask, ConversionTask, Energy, FiringRate, ShortcutTask

LEVELS = 2  # L of LM-HT
SOURCE_LEVELS = 8  # Q of the source: the paper's; equals L T at T = 4
DIRECT = {"optimizer": "adamw", "lr": 5e-3, "weight_decay": 0.02}
SOURCE = {"optimizer": "momentum", "lr": 0.1, "weight_decay": 5e-4, "decay_all": True}
TUNE = {"optimizer": "sgd", "lr": 5e-3, "weight_decay": 5e-4, "decay_all": True}  # SGD with Nesterov momentum
CONVERSIONS: dict[str, dict[str, Any]] = {  # that are fine-tuned, too, at T = 2
    "qcfs": {},
    "srp": {"tau": 4},
    "cos": {"rho": 4},
    "parallel": {},
    "dcgs": {"levels": 2},
    "ecmt": {},
}


@dataclass(frozen=True)
class Setting:
    """A data set, the backbone, and how long everything trains."""

    data: str
    arguments: dict[str, Any]
    spiking: str
    lmht: str
    source: str
    network: dict[str, Any]  # arguments that all of them share
    epochs: int
    tuning: int  # further epochs of hybrid training
    seeds: tuple[int, ...]
    tuned: tuple[str, ...] = ()  # of CONVERSIONS, with the first seed


SETTINGS = {
    "mnist5k": Setting(
        data="MNIST5kDataModule",
        arguments={"batch_size": 64, "eval_batch_size": 250, "crop_padding": 2},
        spiking="spiking_resnet18",
        lmht="lmht_resnet20",
        source="qcfs_resnet20",
        network={"layers": [1, 1, 1], "planes": [8, 16, 32]},
        epochs=12,
        tuning=4,
        seeds=(0, 1, 2),
        tuned=tuple(CONVERSIONS),
    ),
    "cifar10": Setting(
        data="CIFAR10DataModule",
        arguments={"batch_size": 128, "eval_batch_size": 250, "crop_padding": 4, "flip": 0.5},
        spiking="spiking_vgg16",
        lmht="lmht_vgg16",
        source="qcfs_vgg16",
        network={"plan": [[16], [32], [64], [128]], "hidden": 0, "pool_size": 2},
        epochs=5,
        tuning=2,
        seeds=(0,),
    ),
}


@dataclass(frozen=True)
class Run:
    """One row of the table."""

    setting: str
    method: str
    time_steps: int
    seed: int

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from other rows."""
        return self.setting, self.method, str(self.time_steps), str(self.seed)


def runs(name: str) -> list[Run]:
    """The rows of a data set; sources come before what needs them."""
    setting, found = SETTINGS[name], []
    for seed in setting.seeds:
        found.append(Run(name, "source", 1, seed))
        found += [Run(name, method, t, seed) for t in (2, 4) for method in ("stbp", "shortcut", "lmht")]
        found += [Run(name, "converted", t, seed) for t in (2, 4, 8)]
        found += [Run(name, method, t, seed) for method in ("hybrid", "hybrid_official") for t in (2, 4)]
    return found + [Run(name, f"tuned_{method}", 2, setting.seeds[0]) for method in setting.tuned]


def source_file(run: Run) -> Path:
    """Weights of the source of this seed."""
    return ROOT / "runs" / "hybrid" / f"{run.setting}-source-seed{run.seed}.ckpt"


def build(run: Run, num_classes: int, size: tuple[int, int, int]) -> ClassificationTask:
    """The task, before training."""
    shape = {"num_classes": num_classes, "in_chans": size[0]}
    setting = SETTINGS[run.setting]
    network = {**setting.network, "time_steps": run.time_steps}
    lmht = {**network, "neuron_args": {"levels": LEVELS}}
    if run.method == "source":
        source = {**setting.network, "levels": SOURCE_LEVELS, "v_threshold": 2.0}
        return ClassificationTask(setting.source, source, **shape, **SOURCE)
    if run.method == "stbp":
        return ClassificationTask(setting.spiking, network, **shape, **DIRECT)
    if run.method == "shortcut":
        return ShortcutTask(setting.spiking, model_args=network, **shape, **DIRECT)
    if run.method == "lmht":
        return ClassificationTask(setting.lmht, lmht, **shape, **DIRECT)
    if run.method.startswith("tuned_"):
        method = run.method.removeprefix("tuned_")
        start = {"method": method, "method_args": CONVERSIONS[method], "time_steps": run.time_steps}
        start |= {"input_size": list(size), "calibration": {"samples": 100}}
        return ConversionTask(source={"model": str(source_file(run))}, **start, **shape, **TUNE)
    if run.method == "converted":
        source = {"model": str(source_file(run))}
        return ConversionTask(source=source, time_steps=run.time_steps, input_size=list(size), **shape)
    hybrid = {"source": str(source_file(run)), "official_bias": run.method == "hybrid_official"}
    return ClassificationTask(setting.lmht, {**lmht, "hybrid": hybrid}, **shape, **TUNE)


def do(run: Run, threads: int, limit: float) -> dict[str, Any]:
    """Train and test one network; its row."""
    setting = SETTINGS[run.setting]
    pl.seed_everything(run.seed, workers=True, verbose=False)
    data: Any = getattr(datamodules, setting.data)(**folder(run.setting), **setting.arguments)
    data.prepare_data()
    data.setup("fit")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*only Q = L T starts exactly.*")
        task = build(run, data.num_classes, data.input_size)
    hybrid, tuned = run.method.startswith("hybrid"), run.method.startswith(("hybrid", "tuned"))
    epochs = {"converted": 0}.get(run.method, setting.tuning if tuned else setting.epochs)
    row: dict[str, Any] = dict(zip(("data", "method", "time_steps", "seed"), run.key, strict=True))
    before = f"{test(task, data)[0]['test/acc1']:.4f}" if tuned else ""
    gap = f"{start_gap(run, task, data):.4f}" if hybrid else ""
    start = time.monotonic()
    if epochs:
        trainer = quiet(max_epochs=epochs, max_time={"minutes": limit}, limit_val_batches=0)
        trainer.fit(task, train_dataloaders=data.train_dataloader())
        if trainer.current_epoch < epochs:
            raise SystemExit(f"{run} was not done after {limit} minutes; nothing was written")
    minutes = (time.monotonic() - start) / 60
    if run.method == "source":
        source_file(run).parent.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(source_file(run))
    metrics, rate = test(task, data)
    return {
        **row,
        "accuracy": f"{metrics['test/acc1']:.4f}",
        "before": before,
        "start_gap": gap,
        "every_step": " ".join(f"{metrics[key]:.4f}" for key in sorted(metrics) if "/acc1_t" in key),
        "firing_rate": "" if rate is None else f"{rate:.4f}",
        "energy_uj": f"{metrics['test/energy_mj'] * 1e3:.4f}",
        "minutes": f"{minutes:.2f}",
        "epochs": epochs,
        "threads": threads,
        "date": time.strftime("%Y-%m-%d"),
    }


@torch.no_grad()
def start_gap(run: Run, task: ClassificationTask, data: Any) -> float:
    """Mean distance of the first logits from the source's, in units of their mean size."""
    source, network = zoo.load(str(source_file(run))).eval(), task.model.eval()
    x = next(iter(data.test_dataloader()))[0]
    scale = 1.0 if run.method == "hybrid" else LEVELS  # the official start runs at L times the source's scale
    want = source(x)
    network_logits = network(x) / scale
    task.train()
    return float((network_logits - want).abs().mean() / want.abs().mean())


def folder(name: str) -> dict[str, str]:
    """Where the images of CIFAR-10 lie; the digits come with a package."""
    return {"folder": os.environ.get("CIFAR10_JPEG", "data/cifar10")} if name == "cifar10" else {}


def quiet(**arguments: Any) -> pl.Trainer:
    """A trainer that leaves no files."""
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=ROOT / "runs" / "hybrid",
        **arguments,
    )


def test(task: ClassificationTask, data: Any) -> tuple[dict[str, float], float | None]:
    """Metrics on the test images, and spikes per neuron and step if there are neurons."""
    analog = type(task.model).__name__.startswith("QCFS")
    watch = [Energy()] if analog else [Energy(), FiringRate()]
    metrics = quiet(callbacks=watch).test(task, datamodule=data, verbose=False)[0]
    return dict(metrics), metrics.get("test/firing_rate")


def finished(table: Path) -> set[tuple[str, ...]]:
    """Keys of the rows that the table has."""
    if not table.exists():
        return set()
    with table.open(newline="") as file:
        return {(r["data"], r["method"], r["time_steps"], r["seed"]) for r in csv.DictReader(file)}


def main() -> None:
    """Do what is missing from the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(SETTINGS)}")
    parser.add_argument("--table", type=Path, default=ROOT / "benchmarks" / "hybrid_table.csv")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=15.0, help="minutes that one run may train")
    parser.add_argument("--only", nargs="*", help="methods to run", default=None)
    parser.add_argument("--stop-after", type=float, default=float("inf"), help="start nothing after minutes")
    parser.add_argument("--list", action="store_true", help="say what would be run, and stop")
    args = parser.parse_args()
    for name in args.names:
        if name not in SETTINGS:
            parser.error(f"unknown data {name!r}; known: {', '.join(SETTINGS)}")
    torch.set_num_threads(args.threads)
    done = finished(args.table)
    begun = time.monotonic()
    for run in (run for name in args.names or SETTINGS for run in runs(name) if run.key not in done):
        if args.only and run.method not in args.only:
            continue
        if args.list:
            print(*run.key)
        elif time.monotonic() - begun < 60 * args.stop_after:
            row = do(run, args.threads, args.limit)
            append(args.table, row)
            print(row, flush=True)


if __name__ == "__main__":
    main()
