"""What a run came to: a short table, a file for machines, and the curves."""

from __future__ import annotations

import csv
import json
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.table import Table
from typing_extensions import override

import zoo
from lightning_modules import figures
from zoo.files.atomic import write_text
from zoo.files.layout import sha256_of

if TYPE_CHECKING:
    from lightning_modules.figures import Curve
    from zoo import Task


class RunReport(pl.Callback):
    """After a test, prints the results and writes ``report.json`` and ``report.md`` into the run's folder.

    Accuracy at every T, also before training where a run starts from trained weights, firing rate, synaptic
    operations, energy next to the same network as an ANN, the checkpoint, and the figures;
    ``figures/curves.png`` is drawn from ``metrics.csv``. Training leaves the facts that a model card needs:
    command, seed, hardware, minutes, method, data, where weights came from.

    Args:
        command: the command that was typed, for the record.
    """

    def __init__(self, command: str | None = None) -> None:
        super().__init__()
        self.command = command
        self._started = 0.0
        self._origin: Any = None
        self._start: dict[str, float] | None = None

    def keep_as_start(self, trainer: pl.Trainer) -> None:
        """The test that has just ended was of the weights that a run starts from."""
        self._start = _test_metrics(trainer)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.monotonic()
        self._origin = getattr(_network(pl_module), "origin", None)

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        facts = getattr(getattr(trainer, "datamodule", None), "facts", None)
        training = {
            "command": self.command,
            "method": _method(pl_module),
            "hardware": hardware(trainer.strategy.root_device, trainer.world_size),
            "minutes": round((time.monotonic() - self._started) / 60, 2),
            "epochs": trainer.current_epoch,
            "data": facts() if callable(facts) else None,
            "origin": self._origin,
        }
        report = {**_facts(pl_module), "training": training, "before": self._start}
        write_text(Path(trainer.default_root_dir) / "report.json", json.dumps(report, indent=2) + "\n")

    @override
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        folder = Path(trainer.default_root_dir)
        metrics = _test_metrics(trainer)
        if not metrics:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._draw_curves(folder)
        found = sorted(str(p.relative_to(folder)) for p in (folder / "figures").glob("*.png"))
        report: dict[str, Any] = {
            **_earlier(folder / "report.json"),
            **_facts(pl_module),
            "checkpoint": str(trainer.ckpt_path or _best(trainer) or ""),
            "checkpoint_sha256": None,  # says later whether these numbers are still those of the file
            "metrics": metrics,
            "figures": found,
        }
        if (path := Path(report["checkpoint"])).is_file():
            report["checkpoint_sha256"] = sha256_of(path)
        rows = lines(report)
        write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
        write_text(folder / "report.md", _markdown(rows))
        table = Table(title=f"{report['model']}: {folder}", show_header=False, title_justify="left")
        for row in rows:
            table.add_row(*row)
        Console().print(table)

    def _draw_curves(self, folder: Path) -> None:
        path = folder / "metrics.csv"
        if not path.is_file():
            return
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        loss = {name: _curve(rows, name) for name in ("train/loss", "val/loss")}
        accuracy = {name: _curve(rows, name) for name in ("train/acc1", "val/acc1")}
        loss = {name: curve for name, curve in loss.items() if curve[0]}
        accuracy = {name: curve for name, curve in accuracy.items() if curve[0]}
        if loss or accuracy:
            figures.save(figures.curves(loss, accuracy), folder / "figures" / "curves.png")


def _test_metrics(trainer: pl.Trainer) -> dict[str, float]:
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {name: value for name, value in metrics.items() if name.startswith("test/")}


def _network(pl_module: pl.LightningModule) -> Any:
    return pl_module.get_submodule("model")


def _facts(pl_module: pl.LightningModule) -> dict[str, Any]:
    return {
        "model": getattr(pl_module, "title", type(pl_module).__name__),
        "task": zoo.task_of(_network(pl_module)).name,
        "parameters": sum(p.numel() for p in _network(pl_module).parameters()),
        "seed": int(os.environ.get("PL_GLOBAL_SEED", "0")),
    }


def _earlier(path: Path) -> dict[str, Any]:
    """What the training of this folder wrote down, if it did."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: content[key] for key in ("training", "before") if content.get(key)}


def _method(pl_module: pl.LightningModule) -> str:
    """What the task says of its method, the method's paper, and the loss."""
    method = getattr(pl_module, "method", "") or type(pl_module).__name__
    paper = getattr(pl_module, "paper", None)
    loss = getattr(pl_module, "loss_name", None)
    return "".join([method, f" (arXiv {paper})" if paper else "", f"; loss: {loss}" if loss else ""])


def hardware(device: torch.device, processes: int = 1) -> str:
    """What a run is computed on, in words."""
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    else:
        kind = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return f"{processes} x {kind}" if processes > 1 else kind


def lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The report as (label, value)."""
    metrics: dict[str, float] = report["metrics"]
    rows = [("parameters", f"{report['parameters']:,}")]
    task = zoo.get_task(report.get("task", "classification"))
    rows += _quality(metrics, task)
    earlier = _quality(report.get("before") or {}, task)
    rows += [(f"before training: {label}", value) for label, value in earlier]
    if "test/firing_rate" in metrics:
        rows.append(("firing rate", f"{metrics['test/firing_rate']:.4f} spikes per neuron and step"))
    if "test/sops" in metrics:
        rows.append(("synaptic operations", f"{metrics['test/sops']:,.0f} per sample"))
    if "test/energy_mj" in metrics:
        energy, ann = metrics["test/energy_mj"], metrics.get("test/ann_energy_mj", float("nan"))
        rows.append(("energy", f"{energy * 1e3:.3f} uJ per sample (4.6 pJ a MAC, 0.9 pJ a SOP)"))
        rows.append(("the same network as an ANN", f"{ann * 1e3:.3f} uJ, {ann / energy:.1f} times as much"))
    if report["checkpoint"]:
        rows.append(("checkpoint", report["checkpoint"]))
    rows += [("figure", name) for name in report["figures"]]
    return rows


def _quality(metrics: dict[str, float], task: Task) -> list[tuple[str, str]]:
    """The task's headline metric, at every T as well; of other tasks than classification the further ones."""
    rows = []
    every = {t: value for name, value in metrics.items() if (t := task.step_of(name)) is not None}
    headline = task.metrics[task.headline]
    if (name := f"test/{task.headline}") in metrics:
        rows.append((f"test {task.quality}", headline.text(metrics[name])))
    if every:
        told = ", ".join(f"T={t}: {headline.text(every[t])}" for t in sorted(every))
        rows.append((f"{task.quality} at every T", told))
    if task != zoo.get_task("classification"):
        further = {f"test/{k}": metric for k, metric in task.metrics.items() if k != task.headline}
        rows += [(m.label, m.text(metrics[name])) for name, m in further.items() if name in metrics]
    return rows


def _curve(rows: list[dict[str, str]], name: str) -> Curve:
    points = [(float(row["step"]), float(row[name])) for row in rows if row.get(name)]
    return [x for x, _ in points], [y for _, y in points]


def _best(trainer: pl.Trainer) -> str | None:
    best = trainer.checkpoint_callback
    return getattr(best, "best_model_path", None)


def _markdown(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows), ""])
