"""What a run writes down about itself: how it trained, what was measured, and on which samples."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import EarlyStopping

import zoo
from zoo.saving import version_of

if TYPE_CHECKING:
    import lightning.pytorch as pl

REPORT = "report.json"
TESTS = "tests.jsonl"  # every test of a folder, one a line; nothing is taken out
OTHER = "test"  # folder within a run's for tests that are not the one of record
PARTS: dict[str, tuple[Any, ...]] = {  # options of a trainer that leave out data; values that leave out none
    "limit_train_batches": (None, 1.0),
    "limit_val_batches": (None, 1.0),
    "overfit_batches": (None, 0),
}
SUBJECT = ("data", "root", "split", "of", "time_steps", "token_reduction")  # must agree with the training's


def read_report(folder: Path) -> dict[str, Any]:
    """``report.json`` of a folder; empty if there is none that can be read."""
    try:
        content = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def hardware(device: torch.device, processes: int = 1) -> str:
    """What a run is computed on, in words."""
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    else:
        kind = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return f"{processes} x {kind}" if processes > 1 else kind


def versions() -> dict[str, str]:
    """Of the programs that compute."""
    return {name: version_of(name) for name in ("fulgurite", "torch", "lightning")}


def network(pl_module: pl.LightningModule) -> Any:
    """The network of a task."""
    return pl_module.get_submodule("model")


def facts(pl_module: pl.LightningModule) -> dict[str, Any]:
    """What is run."""
    return {
        "model": getattr(pl_module, "title", type(pl_module).__name__),
        "task": zoo.task_of(network(pl_module)).name,
        "parameters": sum(p.numel() for p in network(pl_module).parameters()),
    }


def seed() -> int | None:
    """The seed that was set for everything; None if none was."""
    value = os.environ.get("PL_GLOBAL_SEED")
    return None if value is None else int(value)


def method(pl_module: pl.LightningModule) -> str:
    """What the task says of its method, the method's paper, and the loss."""
    told = getattr(pl_module, "trained_by", None)
    name, paper = told() if callable(told) else (type(pl_module).__name__, None)
    loss = getattr(pl_module, "loss_name", None)
    weights = getattr(pl_module, "class_weights", None)
    loss_text = f"; loss: {loss}" + (", classes weighted" if weights is not None else "") if loss else ""
    return "".join([name, f" (arXiv {paper})" if paper else "", loss_text])


# -- data ------------------------------------------------------------------------------------------


def data_facts(trainer: pl.Trainer) -> dict[str, Any] | None:
    """What the data module says of its data."""
    told = getattr(getattr(trainer, "datamodule", None), "facts", None)
    return told() if callable(told) else None


def splits(trainer: pl.Trainer) -> dict[str, dict[str, Any]]:
    """``name`` and ``samples`` of ``train``, ``val`` and ``test``, as far as the data module tells."""
    told = getattr(getattr(trainer, "datamodule", None), "splits", None)
    return {role: asdict(split) for role, split in told().items()} if callable(told) else {}


def _root(trainer: pl.Trainer) -> str | None:
    """Where data without a name of their own lie, as it was typed."""
    data = getattr(trainer, "datamodule", None)
    if getattr(data, "title", "") and (data_facts(trainer) or {}).get("name") == getattr(data, "title", ""):
        return None
    place = getattr(data, "folder", None) or getattr(data, "root", None)
    return str(place) if isinstance(place, str | Path) else None


def parts(trainer: pl.Trainer) -> dict[str, Any]:
    """Options that leave out part of the training data."""
    found = {name: getattr(trainer, name, None) for name in PARTS}
    return {k: v for k, v in found.items() if v not in PARTS[k] or (v == 1 and isinstance(v, int))}


def choice(trainer: pl.Trainer) -> dict[str, Any] | None:
    """Which samples chose the checkpoint, or the end of the training; None if nothing did."""
    judges: list[Any] = [c for c in trainer.checkpoint_callbacks if getattr(c, "monitor", None)]
    stops: list[Any] = [c for c in trainer.early_stopping_callbacks if isinstance(c, EarlyStopping)]
    names = sorted({str(c.monitor) for c in (*judges, *stops) if str(c.monitor).startswith("val/")})
    if not names:
        return None
    best = [Path(c.best_model_path).name for c in judges if getattr(c, "best_model_path", "")]
    on = splits(trainer).get("val") or {}
    return {
        "by": names,
        "checkpoints": best,
        "stopped": bool(stops),
        "split": on.get("name"),
        "samples": on.get("samples"),
    }


def subject(trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
    """What a test of this run is about: the samples, and what of the network a checkpoint does not fix."""
    split = splits(trainer).get("test")
    model = network(pl_module)
    hyper = getattr(pl_module, "hparams", {})
    return {
        "data": (data_facts(trainer) or {}).get("name"),
        "root": _root(trainer),
        "split": None if split is None else split["name"],
        "of": None if split is None else split["samples"],
        "time_steps": getattr(model, "time_steps", None),
        "token_reduction": hyper.get("token_reduction"),
    }


# -- tests -----------------------------------------------------------------------------------------


def planned(trainer: pl.Trainer, of: int | None) -> int | None:
    """How many samples the present test will see; None where its loaders do not tell."""
    loaders: Any = trainer.test_dataloaders
    loaders = loaders if isinstance(loaders, list | tuple) else [loaders]
    total = 0
    for loader, batches in zip(loaders, trainer.num_test_batches, strict=False):
        try:
            whole, size = len(loader), len(loader.dataset)
        except (TypeError, AttributeError):
            return None
        size = of if of is not None and len(loaders) == 1 else size
        seen = batches * (getattr(loader, "batch_size", None) or 1) * trainer.world_size
        total += size if batches >= whole else min(size, int(seen))
    return total


def checkpoint_of(trainer: pl.Trainer) -> str:
    """The checkpoint that is tested; empty for the weights at hand."""
    return str(trainer.ckpt_path or "")


def is_of_record(trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
    """Whether the present test is the one that the run's folder is known by.

    It is not, if it is of other weights than the run's own, of other samples, T or tokens than its training
    names, or if it sees fewer samples than an earlier one of this run.
    """
    folder = Path(trainer.default_root_dir)
    earlier, now = read_report(folder), subject(trainer, pl_module)
    if training := earlier.get("training"):
        tested = checkpoint_of(trainer)
        if tested and folder.resolve() not in Path(tested).resolve().parents:
            return False
        if not tested and pl_module.global_step == 0 and training.get("epochs"):
            return False  # neither trained here nor loaded
        told = training.get("subject") or {}
        if any(told.get(key, now[key]) != now[key] for key in SUBJECT):
            return False
    before = earlier.get("measured") or {}
    seen = planned(trainer, now["of"])
    return not (before.get("samples") and seen is not None and seen < before["samples"])


def test_folder(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Path:
    """Where the present test writes: the run's folder if it is of record, else `OTHER` within."""
    folder = Path(trainer.default_root_dir)
    return folder if is_of_record(trainer, pl_module) else folder / OTHER


def chosen_on_these(report: dict[str, Any]) -> bool:
    """Whether the samples that were tested on also chose the checkpoint, or when to stop."""
    told = (report.get("training") or {}).get("chosen") or {}
    measured = report.get("measured") or {}
    if not told or told.get("split") is None or told["split"] != measured.get("split"):
        return False
    return bool(told.get("stopped") or Path(report.get("checkpoint") or "").name in told["checkpoints"])


def split_text(measured: dict[str, Any], item: str = "sample") -> str:
    """``test, 200 of 1,000 samples of NAME``; ``item`` is what a task calls a sample."""
    name, seen, of = (measured.get(key) for key in ("split", "samples", "of"))
    count = "" if seen is None else f", {seen:,}" + (f" of {of:,}" if of not in (None, seen) else "")
    data = f" of {measured['data']}" if measured.get("data") else ""
    return f"{name or f'{item}s of an unnamed split'}{count}{f' {item}s' if count else ''}{data}"
