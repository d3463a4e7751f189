"""A conversion from plain values: load the source, convert, measure at every T, write it down."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

import conversion
import zoo
from lightning_modules import figures
from lightning_modules.conversion.evaluate import Comparison, compare
from lightning_modules.preprocessing import match
from lightning_modules.record import REPORT, hardware, split_text, versions
from lightning_modules.source import Calibration, Source
from spiking.measure.energy import E_AC, E_MAC
from zoo.files.atomic import write_text
from zoo.files.description import preprocessing_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from conversion import ConvertedModel


@dataclass(frozen=True, kw_only=True)
class ConversionRun:
    """What a YAML file of ``fulgurite convert`` says.

    Attributes:
        data: calibrates with its training images and measures on its test images.
        source: the ANN.
        method: see ``conversion.list_methods``.
        method_args: settings of the method.
        time_steps: T of the network that is kept.
        evaluate_at: every T that accuracy, firing rate and energy are measured at, besides.
        calibration: training images for thresholds and corrections; null goes without.
        energy_batches: test batches whose operations are counted; 0 counts all.
    """

    data: Any
    source: Source
    method: str = "qcfs"
    method_args: dict[str, Any] | None = None
    time_steps: int = 8
    evaluate_at: list[int] | None = None
    calibration: Calibration | None = None
    energy_batches: int = 4

    @property
    def marks(self) -> list[int]:
        """Every T that is measured; 1, 2, 4, ... up to T where nothing is said."""
        steps = self.time_steps
        asked = self.evaluate_at
        if asked is None:
            asked = [2**k for k in range(steps.bit_length())]
        return sorted({*asked, steps})

    def convert(self, progress: bool = True) -> tuple[nn.Module, ConvertedModel]:
        """Source and converted network, on the accelerator if there is one.

        Raises:
            ValueError: see `Source.load` and ``conversion.convert``; so for other errors.
        """
        conversion.get_method(self.method, self.method_args or {}).check_time_steps(self.time_steps)
        if bad := [t for t in self.marks if t < 1]:
            raise ValueError(f"evaluate_at must name time steps of at least 1, got {bad[0]}")
        data = self.data
        if getattr(data, "num_classes", None) is None:
            raise ValueError(
                f"fulgurite convert compares classifiers, and {type(data).__name__} has no classes; other"
                " networks are converted in Python: conversion.convert(network, method, time_steps), then"
                " zoo.save"
            )
        ann = self.source.load(data.num_classes, data.in_chans)
        match(data, self.source.preprocessing(ann), self.source.model)
        data.prepare_data()
        data.setup("fit")
        if torch.accelerator.is_available():
            ann.to(torch.accelerator.current_accelerator())
        return ann, self.again(ann, self.time_steps, progress)

    def again(self, ann: nn.Module, time_steps: int, progress: bool = True) -> ConvertedModel:
        """The source converted for another T."""
        return conversion.convert(
            ann,
            self.method,
            time_steps,
            None if self.calibration is None else self.calibration.images(self.data),
            input_size=self.data.input_size,
            progress=progress,
            **(self.method_args or {}),
        )

    def compare(self, ann: nn.Module, snn: ConvertedModel, progress: bool = True) -> Comparison:
        """Both networks on the test images, at every T."""
        self.data.setup("test")
        return compare(
            ann,
            snn,
            self.data.test_dataloader(),
            self.marks,
            reconvert=lambda steps: self.again(ann, steps, progress),
            energy_batches=self.energy_batches,
            progress=progress,
        )

    def measured(self, comparison: Comparison) -> dict[str, Any]:
        """Which samples the comparison is of, and how many of them operations were counted on."""
        told = getattr(self.data, "splits", None)
        split = told().get("test") if callable(told) else None
        facts = self.data.facts() if hasattr(self.data, "facts") else {}
        return {
            "data": facts.get("name"),
            "split": None if split is None else split.name,
            "samples": comparison.samples,
            "of": None if split is None else split.samples,
            "energy_samples": comparison.energy_samples,
        }


def table(comparison: Comparison, title: str) -> Table:
    """The comparison for a terminal, one row for each T."""
    ann = comparison
    energy = f"{ann.ann_energy_mj * 1e3:,.2f}"
    rows = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for head in (
        "T",
        "latency",
        "accuracy",
        "same",
        "logits",
        "rate",
        "MSOPs",
        "uJ",
        "ratio",
        "paper",
        "full",
    ):
        rows.add_column(head, justify="right", no_wrap=True)
    for p in ann.points:
        rows.add_row(
            str(p.time_steps),
            str(p.latency),
            f"{p.accuracy:.2%}",
            f"{p.agreement:.2%}",
            f"{p.logit_difference:.3f}",
            f"{p.firing_rate:.4f}",
            f"{p.sops / 1e6:,.3f}",
            f"{p.energy_mj * 1e3:,.2f}",
            f"{p.energy_mj / ann.ann_energy_mj:.2f}",
            "-" if p.official_ratio is None else f"{p.official_ratio:.2f}",
            f"{p.full_ratio:.2f}",
        )
    rows.add_section()
    rows.add_row("ANN", "", f"{ann.ann_accuracy:.2%}", "", "", "", "", energy, "1.00", "1.00", "1.00")
    return rows


def legend(comparison: Comparison, measured: Mapping[str, Any] | None = None) -> str:
    """What the columns of the table mean, and on which samples they were measured."""
    told = split_text({"samples": comparison.samples, **(measured or {})})
    return (
        "latency: steps until the output is there, rehearsals included; same: share of top-1 equal to the\n"
        "ANN's; logits: mean distance from the ANN's, relative; rate: spikes per neuron and step; energy at\n"
        f"{E_MAC} pJ a MAC and {E_AC} pJ a SOP (45 nm, Horowitz, ISSCC 2014), by that of the ANN; ratio:\n"
        "of layers with weights and of products; paper: as the paper counts; full: with norms, softmaxes,\n"
        f"activations and updates of neurons. Means over {told}."
    )


def metrics(comparison: Comparison, time_steps: int) -> dict[str, float]:
    """What a card records: accuracy at every T, and the rest at the T of the network."""
    here = comparison.at(time_steps)
    return {
        "test/acc1": here.accuracy,
        **{f"test/acc1_t{p.time_steps}": p.accuracy for p in comparison.points},
        "test/ann_acc1": comparison.ann_accuracy,
        "test/agreement": here.agreement,
        "test/firing_rate": here.firing_rate,
        "test/macs": here.macs,
        "test/sops": here.sops,
        "test/energy_mj": here.energy_mj,
        "test/ann_energy_mj": comparison.ann_energy_mj,
        "test/full_energy_ratio": here.full_ratio,
        **({} if here.official_ratio is None else {"test/official_energy_ratio": here.official_ratio}),
    }


def write(
    folder: Path,
    run: ConversionRun,
    snn: ConvertedModel,
    comparison: Comparison,
    *,
    command: str | None = None,
    settings: str | None = None,
    seed: int | None = None,
    seconds: float | None = None,
) -> Path:
    """Write a folder of the zoo with figures, and the report beside them.

    Args:
        folder: made if absent; what ``zoo.save`` wrote there is replaced whole or not at all.
        run: what was done.
        snn: the network.
        comparison: what it reaches.
        command: for the record.
        settings: the YAML, for the record.
        seed: for the record.
        seconds: that conversion and measurement took.

    Returns:
        The folder.
    """
    facts: dict[str, Any] = run.data.facts() if hasattr(run.data, "facts") else {}
    measured, programs = run.measured(comparison), versions()
    with tempfile.TemporaryDirectory(prefix="fulgurite-") as scratch:  # those there change with the network
        zoo.save(
            snn,
            folder,
            metrics=metrics(comparison, snn.time_steps),
            measured={**measured, "command": command, "versions": programs},
            source=run.source.facts(snn),
            training={"versions": programs},
            dataset={k: facts.get(k) for k in ("name", "hub_id", "licence")},
            command=command,
            settings=settings,
            seed=seed,
            hardware=hardware(next(snn.parameters()).device),
            figures=_draw(comparison, snn.time_steps, Path(scratch), split_text(measured)),
            label_names=facts.get("class_names"),
            pretrained_cfg=preprocessing_of(facts),
        )
    report = {
        "source": asdict(run.source),
        "recipe": snn.recipe,
        "conversion": snn.report.to_dict(),
        "calibration": run.calibration and asdict(run.calibration),
        "measured": measured,
        "comparison": comparison.to_dict(),
        "command": command,
        "seed": seed,
        "seconds": seconds,
        "date": time.strftime("%Y-%m-%d"),
    }
    write_text(folder / REPORT, json.dumps(report, indent=2) + "\n")
    return folder


def _draw(comparison: Comparison, time_steps: int, folder: Path, on: str) -> list[Path]:
    accuracy = {point.time_steps: point.accuracy for point in comparison.points}
    drawn = {
        "accuracy_over_time.png": figures.accuracy_over_time(accuracy, comparison.ann_accuracy, on),
        "firing_rates.png": figures.firing_rates(comparison.at(time_steps).firing_rates, on),
    }
    return [figures.save(figure, folder / name) for name, figure in drawn.items()]
