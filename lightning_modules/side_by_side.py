"""Runs and conversions side by side: quality at every T, energy and latency, several seeds as one."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import zoo
from lightning_modules.record import REPORT, read_report, split_text
from zoo.files.description import read_description
from zoo.files.layout import CONFIG_FILE, RUN_CHECKPOINTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from zoo import Metric

MJ_TO_UJ = 1e3


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one network was measured to reach.

    Attributes:
        name: as people know it: where it lies, or an entry's.
        task: of the network, see `zoo.list_tasks`; its headline is the quality that is compared.
        seed: of its training or conversion; None where that was not recorded.
        time_steps: T, whose quality counts.
        quality: at every T that was measured; accuracies are shares.
        energy_uj: of one sample, in uJ, at the T where it was measured.
        latency: steps until the output is there, by T; T itself but for conversions that rehearse.
        firing_rate: spikes per neuron and step at `time_steps`; None where it was not measured.
        ann_energy_uj: energy of the same network as an ANN, in uJ.
        measured: on what, in words.
    """

    name: str
    task: str
    seed: int | None
    time_steps: int
    quality: Mapping[int, float]
    energy_uj: Mapping[int, float]
    latency: Mapping[int, int]
    firing_rate: float | None
    ann_energy_uj: float | None
    measured: str

    @property
    def group(self) -> str:
        """The name without the seed: outcomes that share it are one run with several seeds."""
        return without_seed(self.name)


def without_seed(name: str) -> str:
    """What a run is called whatever its seed: ``fulgurite fit --seed_everything 1`` adds ``-seed1``.

    >>> without_seed("stbp-mnist5k-seed1")
    'stbp-mnist5k'
    """
    return re.sub(r"-seed\d+$", "", name)


def outcome(folder: Path, name: str) -> Outcome:
    """What the folder of a run, of a conversion, or of a published network states.

    Args:
        folder: where ``report.json`` or the description of `zoo.save` lies.
        name: what it is called.

    Raises:
        ValueError: nothing was measured there.
    """
    report = read_report(folder)
    if isinstance(told := report.get("comparison"), Mapping):
        return _of_conversion(name, report, told)
    if "metrics" in report:
        training = report.get("training") or {}
        seed = report.get("seed", training.get("seed"))
        task = report.get("task", "classification")
        return of_metrics(name, task, report["metrics"], seed, report.get("measured") or {})
    if (folder / CONFIG_FILE).is_file():
        own = read_description(folder).recorded
        measured = {"time_steps": own.time_steps, "data": own.dataset, **own.measured}
        return of_metrics(name, own.task, own.metrics, own.seed, measured)
    if not report and not (folder / RUN_CHECKPOINTS).is_dir():
        raise ValueError(
            f"{folder} is no run, conversion or saved network: it has neither {REPORT} nor {CONFIG_FILE}"
        )
    raise ValueError(f"{name} has no measured results; test it first: fulgurite test {folder}")


def of_metrics(
    name: str, task: str, metrics: Mapping[str, Any], seed: int | None, measured: Mapping[str, Any]
) -> Outcome:
    """What logged values say, ``test/acc1``, ``test/acc1_t3``, ``test/energy_mj`` and so on.

    Args:
        name: of the network.
        task: of the network.
        metrics: the values.
        seed: of its training.
        measured: on what; see `zoo.files.description.Record`.

    Raises:
        ValueError: the quality that the task is known by is not among them.
    """
    about = zoo.get_task(task)
    headline = f"test/{about.headline}"
    if headline not in metrics:
        label = about.metrics[about.headline].label
        raise ValueError(f"{name} has no measured {label}; test it first: fulgurite test {name}")
    steps = {t: float(value) for key, value in metrics.items() if (t := about.step_of(key)) is not None}
    last = int(measured.get("time_steps") or max(steps, default=1))
    energy, ann = metrics.get("test/energy_mj"), metrics.get("test/ann_energy_mj")
    return Outcome(
        name=name,
        task=task,
        seed=seed,
        time_steps=last,
        quality=dict(sorted((steps | {last: float(metrics[headline])}).items())),
        energy_uj={} if energy is None else {last: float(energy) * MJ_TO_UJ},
        latency={t: t for t in {*steps, last}},
        firing_rate=metrics.get("test/firing_rate"),
        ann_energy_uj=None if ann is None else float(ann) * MJ_TO_UJ,
        measured=split_text(dict(measured), about.item) if measured else "not recorded",
    )


def _of_conversion(name: str, report: Mapping[str, Any], told: Mapping[str, Any]) -> Outcome:
    points = told["points"]
    steps = int((report.get("recipe") or {}).get("time_steps") or points[-1]["time_steps"])
    here = next((p for p in points if p["time_steps"] == steps), points[-1])
    return Outcome(
        name=name,
        task="classification",
        seed=report.get("seed"),
        time_steps=here["time_steps"],
        quality={p["time_steps"]: p["accuracy"] for p in points},
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
        name: without the seed where there are several.
        metric: the quality that is compared.
        seeds: those that are in it.
        time_steps: T.
        quality: by T, of those T that every seed has.
        energy_uj: likewise.
        latency: steps by T.
        firing_rate: at `time_steps`, None where a seed lacks it.
        energy_share: energy by that of the same network as an ANN, None where a seed lacks it.
        measured: on what; all different texts.
    """

    name: str
    metric: Metric
    seeds: tuple[int | None, ...]
    time_steps: int
    quality: Mapping[int, Spread]
    energy_uj: Mapping[int, Spread]
    latency: Mapping[int, int]
    firing_rate: Spread | None
    energy_share: Spread | None
    measured: tuple[str, ...]


def rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """One row for each network, in the order given.

    Raises:
        ValueError: networks of several tasks, or what cannot be seeds of one network: different T, or the
            same seed twice.
    """
    tasks = sorted({one.task for one in outcomes})
    if len(tasks) > 1:
        raise ValueError(f"networks of different tasks have no quality in common: {', '.join(tasks)}")
    return [
        _row([one for one in outcomes if one.group == name])
        for name in dict.fromkeys(one.group for one in outcomes)
    ]


def _row(own: Sequence[Outcome]) -> Row:
    name, task = own[0].group if len(own) > 1 else own[0].name, zoo.get_task(own[0].task)
    names = ", ".join(one.name for one in own)
    steps = sorted({one.time_steps for one in own})
    if len(steps) > 1:
        raise ValueError(f"the seeds of {name} have different T ({steps}): {names}; leave some out")
    seed, times = Counter(one.seed for one in own).most_common(1)[0]
    if times > 1:
        raise ValueError(f"seed {seed} of {name} is there {times} times: {names}; leave some out")
    last = steps[0]
    rates = [one.firing_rate for one in own if one.firing_rate is not None]
    shares = [
        one.energy_uj[last] / one.ann_energy_uj for one in own if one.ann_energy_uj and last in one.energy_uj
    ]
    return Row(
        name=name,
        metric=task.metrics[task.headline],
        seeds=tuple(one.seed for one in own),
        time_steps=last,
        quality=_spreads([one.quality for one in own]),
        energy_uj=_spreads([one.energy_uj for one in own]),
        latency=own[0].latency,
        firing_rate=Spread.of(rates) if len(rates) == len(own) else None,
        energy_share=Spread.of(shares) if len(shares) == len(own) else None,
        measured=tuple(dict.fromkeys(one.measured for one in own)),
    )


def _spreads(values: Sequence[Mapping[int, float]]) -> dict[int, Spread]:
    common = set.intersection(*(set(one) for one in values))
    return {t: Spread.of([one[t] for one in values]) for t in sorted(common)}
