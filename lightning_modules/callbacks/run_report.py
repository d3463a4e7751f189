"""What a run came to: a short table, a file for machines, and the curves."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.data import extract_batch_size
from rich.console import Console
from rich.table import Table
from typing_extensions import override

import zoo
from lightning_modules import figures, record
from lightning_modules.callbacks.energy import Energy
from lightning_modules.metrics import repeated_samples, summed
from lightning_modules.record import REPORT, TESTS, hardware
from zoo.files.atomic import write_text
from zoo.files.layout import sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightning_modules.figures import Curve
    from zoo import Task


class RunReport(pl.Callback):
    """After a test, prints the results and writes ``report.json`` and ``report.md`` into the run's folder.

    Accuracy at every T, also before training where a run starts from trained weights, firing rate, synaptic
    operations, energy next to the same network as an ANN, the samples that all this was measured on, the
    checkpoint, and the figures; ``figures/curves.png`` is drawn from ``metrics.csv``. Training leaves the
    facts that a model card needs: commands from the first on, seed, hardware, minutes, versions, method,
    data, what chose the checkpoint, where weights came from. They travel in checkpoints, so that a run that
    was interrupted tells all of it.

    A test of other weights, data or T than the run's own, or of fewer samples than before, goes into the
    folder ``test`` instead; ``tests.jsonl`` keeps every test.

    Args:
        command: the command that was typed, for the record.

    Attributes:
        written: the folder of the last test's report; None before a test.
    """

    def __init__(self, command: str | None = None) -> None:
        super().__init__()
        self.command = command
        self.written: Path | None = None
        self._started: float | None = None
        self._legs: list[dict[str, Any]] = []
        self._restored: dict[str, Any] | None = None
        self._first: dict[str, Any] = {}
        self._start: dict[str, float] | None = None
        self._samples = 0

    def keep_as_start(self, trainer: pl.Trainer) -> None:
        """The test that has just ended was of the weights that a run starts from."""
        self._start = _test_metrics(trainer)

    # -- training ------------------------------------------------------------------------------

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"legs": [*self._legs, self._leg()], "first": self._first, "before": self._start}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict

    def _leg(self) -> dict[str, Any]:
        seconds = 0.0 if self._started is None else time.monotonic() - self._started
        return {"command": self.command, "minutes": round(seconds / 60, 2)}

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.monotonic()
        told = record.facts(pl_module)  # only now: some networks have their size from the data
        where = f"{told['model']}: {told['parameters']:,} parameters, run folder {trainer.default_root_dir}"
        rank_zero_info(where)
        restored, self._restored = self._restored, None
        if restored is None:
            self._legs = []
            self._first = {
                "seed": record.seed(),
                "versions": record.versions(),
                "hardware": hardware(trainer.strategy.root_device, trainer.world_size),
                "origin": getattr(record.network(pl_module), "origin", None),
                "source": getattr(pl_module, "source_facts", None),
            }
        else:
            self._legs, self._first = restored["legs"], restored["first"]
            self._start = restored["before"]

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        legs = [*self._legs, self._leg()]
        training = {
            **self._first,
            "command": legs[0]["command"],
            "resumed": [leg["command"] for leg in legs[1:]],
            "minutes": round(sum(leg["minutes"] for leg in legs), 2),
            "method": record.method(pl_module),
            "epochs": trainer.current_epoch,
            "data": record.data_facts(trainer),
            "train": record.splits(trainer).get("train"),
            "part": record.parts(trainer),
            "chosen": record.choice(trainer),
            "subject": record.subject(trainer, pl_module),
        }
        report = {**record.facts(pl_module), "training": training, "before": self._start}
        write_text(Path(trainer.default_root_dir) / REPORT, json.dumps(report, indent=2) + "\n")

    # -- test ----------------------------------------------------------------------------------

    @override
    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._samples = 0

    @override
    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        count = getattr(pl_module, "samples_in", extract_batch_size)(batch)
        self._samples += count - repeated_samples(trainer, "test", batch_idx)

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._samples = summed(trainer, self._samples)

    @override
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = _test_metrics(trainer)
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False) or not metrics:
            return
        run = Path(trainer.default_root_dir)
        folder = record.test_folder(trainer, pl_module)
        folder.mkdir(parents=True, exist_ok=True)
        earlier = record.read_report(run)
        training = earlier.get("training") if folder == run else None
        if folder == run:
            self._draw_curves(folder, training, pl_module)
        report: dict[str, Any] = {
            **({"training": training} if training else {}),
            **({"before": earlier["before"]} if training and earlier.get("before") else {}),
            **record.facts(pl_module),
            "seed": (training or {}).get("seed", record.seed()),
            **self._tested(trainer, pl_module),
            "metrics": metrics,
            "figures": sorted(str(p.relative_to(folder)) for p in (folder / "figures").glob("*.png")),
        }
        with (run / TESTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({k: v for k, v in report.items() if k != "training"}) + "\n")
        rows = lines(report)
        write_text(folder / REPORT, json.dumps(report, indent=2) + "\n")
        write_text(folder / "report.md", _markdown(rows))
        self.written = folder
        table = Table(title=f"{report['model']}: {folder}", show_header=False, title_justify="left")
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        if folder != run:
            Console().print(f"not the test of record, so {run / REPORT} stays as it is", soft_wrap=True)

    def _tested(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What was tested, on which samples, by which command."""
        callbacks: list[pl.Callback] = getattr(trainer, "callbacks", [])
        energy = next((c for c in callbacks if isinstance(c, Energy)), None)
        path = record.checkpoint_of(trainer)
        return {
            "checkpoint": path,
            "checkpoint_sha256": sha256_of(Path(path)) if Path(path).is_file() else None,  # still that file?
            "measured": {
                **record.subject(trainer, pl_module),
                "samples": self._samples,
                "energy_samples": None if energy is None else energy.samples,
                "energy_constants": None if energy is None else energy.constants,
                "command": self.command,
                "precision": str(trainer.precision),
                "hardware": hardware(trainer.strategy.root_device, trainer.world_size),
                "versions": record.versions(),
                "date": time.strftime("%Y-%m-%d"),
            },
        }

    def _draw_curves(self, folder: Path, training: dict[str, Any] | None, task: pl.LightningModule) -> None:
        wanted: Mapping[str, Sequence[str]] = getattr(task, "curves", {})
        path = folder / "metrics.csv"
        if not path.is_file():
            return
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        on = ((training or {}).get("chosen") or {}).get("split")
        over = getattr(task, "curves_over", "step")
        if sum(len(_curve(rows, name, "epoch")[0]) > 1 for names in wanted.values() for name in names) == 0:
            over = "step"  # one epoch or less has no course over epochs
        panels = {
            quantity: {_label(n, on): curve for n in names if (curve := _curve(rows, n, over))[0]}
            for quantity, names in wanted.items()
        }
        everything = [name for names in wanted.values() for name in names]
        spreads = {_label(n, on): _curve(rows, f"{n}_std", over)[1] for n in everything}
        if any(panels.values()):
            figures.save(figures.curves(panels, spreads, over), folder / "figures" / "curves.png", svg=True)


def _label(name: str, split: str | None) -> str:
    return f"{name} ({split})" if split and name.startswith("val/") else name


def _test_metrics(trainer: pl.Trainer) -> dict[str, float]:
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {name: value for name, value in metrics.items() if name.startswith("test/")}


def lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The report as (label, value)."""
    metrics: dict[str, float] = report["metrics"]
    measured = report.get("measured") or {}
    rows = [("parameters", f"{report['parameters']:,}")]
    task = zoo.get_task(report.get("task", "classification"))
    if measured:
        rows.append(("measured on", record.split_text(measured, task.item)))
    if record.chosen_on_these(report):
        rows.append(("", task.same_samples.format(task.quality)))
    split = measured.get("split") or "test loader"
    rows += _quality(metrics, task, split)
    earlier = _quality(report.get("before") or {}, task, split)
    rows += [(f"before training: {label}", value) for label, value in earlier]
    if "test/firing_rate" in metrics:
        rows.append(("firing rate", f"{metrics['test/firing_rate']:.4f} spikes per neuron and step"))
    counted = measured.get("energy_samples")
    over = f", mean of {counted:,} {task.per}s" if counted and counted != measured.get("samples") else ""
    if "test/sops" in metrics:
        rows.append(("synaptic operations", f"{metrics['test/sops']:,.0f} per {task.per}{over}"))
    if "test/energy_mj" in metrics:
        energy, ann = metrics["test/energy_mj"], metrics.get("test/ann_energy_mj", float("nan"))
        rows.append(("energy", f"{_energy(energy)} per {task.per} (4.6 pJ a MAC, 0.9 pJ a SOP){over}"))
        rows.append(("the same network as an ANN", f"{_energy(ann)}, {ann / energy:.1f} times as much"))
    if "test/paper_energy_mj" in metrics:
        told = measured.get("energy_constants") or {}
        constants = f" ({told['pj_per_mac']:g} pJ a MAC, {told['pj_per_sop']:g} pJ a SOP)" if told else ""
        text = f"{_energy(metrics['test/paper_energy_mj'])} per {task.per}{constants}"
        rows.append(("energy at the paper's constants", text))
    if report["checkpoint"]:
        rows.append(("checkpoint", report["checkpoint"]))
    rows += [("figure", name) for name in report["figures"]]
    return rows


def _energy(mj: float) -> str:
    """In uJ; what is tiny in nJ."""
    return f"{mj * 1e3:.3f} uJ" if mj >= 1e-4 else f"{mj * 1e6:.3f} nJ"


def _quality(metrics: dict[str, float], task: Task, split: str) -> list[tuple[str, str]]:
    """The task's headline metric, at every T as well; of other tasks than classification the further ones."""
    rows = []
    every = {t: value for name, value in metrics.items() if (t := task.step_of(name)) is not None}
    headline = task.metrics[task.headline]
    if (name := f"test/{task.headline}") in metrics:
        plain = split in ("test", "validation")
        label = f"{split} {task.quality}" if plain else f"{task.quality}, {split}"
        rows.append((label, headline.text(metrics[name])))
    if every:
        told = ", ".join(f"T={t}: {headline.text(every[t])}" for t in sorted(every))
        rows.append((f"{task.quality} at every T", told))
    if task != zoo.get_task("classification"):
        further = {f"test/{k}": metric for k, metric in task.metrics.items() if k != task.headline}
        rows += [(m.label, m.text(metrics[name])) for name, m in further.items() if name in metrics]
    return rows


def _curve(rows: list[dict[str, str]], name: str, over: str) -> Curve:
    """What was logged under a name: at every step, or its mean over each epoch, counted from one on."""
    found: dict[float, list[float]] = {}
    for row in rows:
        if row.get(name) and row.get(over):
            place = float(row[over]) + (over == "epoch")
            found.setdefault(place, []).append(float(row[name]))
    return list(found), [fmean(values) for values in found.values()]


def _markdown(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows), ""])
