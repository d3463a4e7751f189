"""Runs and conversions side by side: accuracy at every T, energy and latency, several seeds as one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import zoo
from lightning_modules.record import read_report, split_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MJ_TO_UJ = 1e3


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one network was measured to reach.

    Attributes:
        name: of its folder.
        seed: of its training or conversion; None where that was not recorded.
        time_steps: T, whose accuracy counts.
        accuracy: at every T that was measured, in 0..1.
        energy_uj: of one sample, in uJ, at the T where it was measured.
        latency: steps until the output is there, by T; T itself but for conversions that rehearse.
        firing_rate: spikes per neuron and step at `time_steps`; None where it was not measured.
        ann_energy_uj: energy of the same network as an ANN, in uJ.
        measured: on what, in words.
    """

    name: str
    seed: int | None
    time_steps: int
    accuracy: Mapping[int, float]
    energy_uj: Mapping[int, float]
    latency: Mapping[int, int]
    firing_rate: float | None
    ann_energy_uj: float | None
    measured: str

    @property
    def group(self) -> str:
        """The name without the seed: outcomes that share it are one run with several seeds."""
        return re.sub(r"-seed\d+$", "", self.name)


def outcome(folder: Path) -> Outcome:
    """What the report in the folder of a run, or of a conversion, states.

    Args:
        folder: where ``report.json`` lies.

    Raises:
        ValueError: there is no report, or none of a test of classes.
    """
    report = read_report(folder)
    if isinstance(told := report.get("comparison"), Mapping):
        return _of_conversion(folder.name, report, told)
    metrics: Mapping[str, Any] = report.get("metrics") or {}
    if "test/acc1" not in metrics:
        raise ValueError(
            f"{folder} has no measured accuracy; test it first: fulgurite test {folder}"
            if folder.is_dir()
            else f"no such folder: {folder}"
        )
    training = report.get("training") or {}
    return of_metrics(
        folder.name, metrics, report.get("seed", training.get("seed")), report.get("measured") or {}
    )


def of_metrics(
    name: str, metrics: Mapping[str, Any], seed: int | None, measured: Mapping[str, Any]
) -> Outcome:
    """What logged values say, ``test/acc1``, ``test/acc1_t3``, ``test/energy_mj`` and so on.

    Args:
        name: of the network.
        metrics: the values.
        seed: of its training.
        measured: on what; see `zoo.files.description.Record`.
    """
    step_of = zoo.get_task("classification").step_of
    steps = {t: float(value) for key, value in metrics.items() if (t := step_of(key)) is not None}
    last = int(measured.get("time_steps") or max(steps, default=1))
    energy = metrics.get("test/energy_mj")
    ann = metrics.get("test/ann_energy_mj")
    return Outcome(
        name=name,
        seed=seed,
        time_steps=last,
        accuracy=dict(sorted((steps | {last: float(metrics["test/acc1"])}).items())),
        energy_uj={} if energy is None else {last: float(energy) * MJ_TO_UJ},
        latency={t: t for t in {*steps, last}},
        firing_rate=metrics.get("test/firing_rate"),
        ann_energy_uj=None if ann is None else float(ann) * MJ_TO_UJ,
        measured=split_text(dict(measured)) if measured else "not recorded",
    )


def _of_conversion(name: str, report: Mapping[str, Any], told: Mapping[str, Any]) -> Outcome:
    points = told["points"]
    steps = int((report.get("recipe") or {}).get("time_steps") or points[-1]["time_steps"])
    here = next((p for p in points if p["time_steps"] == steps), points[-1])
    return Outcome(
        name=name,
        seed=report.get("seed"),
        time_steps=here["time_steps"],
        accuracy={p["time_steps"]: p["accuracy"] for p in points},
        energy_uj={p["time_steps"]: p["energy_mj"] * MJ_TO_UJ for p in points},
        latency={p["time_steps"]: p["latency"] for p in points},
        firing_rate=here["firing_rate"],
        ann_energy_uj=told["ann_energy_mj"] * MJ_TO_UJ,
        measured=split_text({"samples": told["samples"], **(report.get("measured") or {})}),
    )


@dataclass(frozen=True)
class Spread:
    """Values of several seeds: their mean, and their standard deviation (N - 1), NaN of one alone."""

    mean: float
    deviation: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else math.nan, len(values))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network with all of its seeds.

    Attributes:
        name: without the seed.
        seeds: those that are in it.
        time_steps: T.
        accuracy: by T, of those T that every seed has.
        energy_uj: likewise.
        latency: steps by T.
        firing_rate: at `time_steps`, None where a seed lacks it.
        energy_share: energy by that of the same network as an ANN, None where a seed lacks it.
        measured: on what; all different texts.
    """

    name: str
    seeds: tuple[int | None, ...]
    time_steps: int
    accuracy: Mapping[int, Spread]
    energy_uj: Mapping[int, Spread]
    latency: Mapping[int, int]
    firing_rate: Spread | None
    energy_share: Spread | None
    measured: tuple[str, ...]


def rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """One row for each network, in the order given.

    Raises:
        ValueError: seeds of one network have different T.
    """
    found = []
    for name in dict.fromkeys(one.group for one in outcomes):
        own = [one for one in outcomes if one.group == name]
        steps = {one.time_steps for one in own}
        if len(steps) > 1:
            raise ValueError(f"the seeds of {name} have different T ({sorted(steps)}); compare them by name")
        rates = [one.firing_rate for one in own if one.firing_rate is not None]
        (last,) = steps
        shares = [
            one.energy_uj[last] / one.ann_energy_uj
            for one in own
            if one.ann_energy_uj and last in one.energy_uj
        ]
        found.append(
            Row(
                name=name if len(own) > 1 else own[0].name,
                seeds=tuple(one.seed for one in own),
                time_steps=last,
                accuracy=_spreads([one.accuracy for one in own]),
                energy_uj=_spreads([one.energy_uj for one in own]),
                latency=own[0].latency,
                firing_rate=Spread.of(rates) if len(rates) == len(own) else None,
                energy_share=Spread.of(shares) if len(shares) == len(own) else None,
                measured=tuple(dict.fromkeys(one.measured for one in own)),
            )
        )
    return found


def _spreads(values: Sequence[Mapping[int, float]]) -> dict[int, Spread]:
    common = set.intersection(*(set(one) for one in values))
    return {t: Spread.of([one[t] for one in values]) for t in sorted(common)}
