"""What was measured, as tables for people and as the Hub's ``model-index``; the task says what counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.files.card.markdown import slug, table
from zoo.tasks import costs

if TYPE_CHECKING:
    from zoo.files.description import Record
    from zoo.tasks import Task

ENERGY_NOTE = (
    "Energy is an estimate from counted operations: 4.6 pJ a MAC, 0.9 pJ an addition (45 nm,"
    " Horowitz, ISSCC 2014), without memory traffic and neuron updates."
)


SPLITS = {"test": "test", "val": "validation", "train": "train"}  # by the first word of a logged name


def split_of(own: Record) -> str | None:
    """The split that was measured on: as recorded, or else as the names of the metrics say."""
    if own.measured:
        return own.measured.get("split")
    told = {SPLITS.get(key.partition("/")[0]) for key in own.metrics if "/" in key}
    return told.pop() if len(told) == 1 else None


def data_of(own: Record) -> str | None:
    """The data that were measured on."""
    return own.measured.get("data") or own.dataset


def where(own: Record, task: Task) -> str:
    """On what the metrics were measured, as a sentence without its full stop."""
    data, split = data_of(own), split_of(own)
    seen, of = own.measured.get("samples"), own.measured.get("of")
    if seen is None:
        if data is None:
            return ""
        if split in (None, "test"):
            return task.tested.format(data).rstrip(".")
        return f"On the {split} set of {data}"
    count = f"{seen:,} of the {of:,}" if of not in (None, seen) else f"{seen:,}"
    items = f"{task.item}s"
    split_name = {"test": f"test {items}", "validation": f"validation {items}", None: items}
    name = split_name.get(split, f"{items} {split}")
    return f"On {count} {name}" + (f" of {data}" if data else "")


def measured(own: Record, task: Task) -> list[str]:
    """What we measured with these weights."""
    if not own.metrics:
        return ["## Measured", "Nothing was measured with these weights."]
    headline = task.metrics[task.headline]
    by_step = {t: v for k, v in own.metrics.items() if (t := task.step_of(k)) is not None}
    short = {k.rpartition("/")[2]: v for k, v in own.metrics.items() if task.step_of(k) is None}
    sentence = where(own, task)
    parts = ["## Measured", f"{sentence}." if sentence else ""]
    if by_step:
        head = ("T", *(str(t) for t in sorted(by_step)))
        parts.append(table([head, (headline.label, *(headline.text(by_step[t]) for t in sorted(by_step)))]))
    rows: list[tuple[str, ...]] = [("quantity", "value")]
    rows += [(metric.label, metric.text(short[key])) for key, metric in task.metrics.items() if key in short]
    spent = costs(task)
    rows += [(spent[k].label, spent[k].text(v)) for k, v in short.items() if k in spent]
    rows += [(k, f"{v:.6g}") for k, v in short.items() if k not in spent and k not in task.metrics]
    parts.append(table(rows))
    counted = own.measured.get("energy_samples")
    if counted and counted != own.measured.get("samples"):
        over = "of these samples" if task.per == task.item else f"{task.per}s"
        parts.append(f"Operations and energy are means over {counted:,} {over}.")
    if "energy_mj" in short:
        parts.append(ENERGY_NOTE)
    if "paper_energy_mj" in short and (told := own.measured.get("energy_constants")):
        constants = f"{told['pj_per_mac']:g} pJ a MAC, {told['pj_per_sop']:g} pJ a synaptic operation"
        parts.append(f"The paper's constants: {constants}.")
    command = own.measured.get("command")
    if command and command != own.command:
        parts.append(f"Measured by `{command}`.")
    return parts


def published(own: Record) -> list[str]:
    """The paper's numbers, apart from ours: they belong to other weights."""
    if not own.published:
        return []
    rows: list[tuple[str, ...]] = [("quantity", "value")]
    rows += [(k, f"{v:.6g}") for k, v in own.published.items()]
    source = f"arXiv {own.paper}" if own.paper else "its authors"
    text = f"Numbers of {source}, reached with the authors' own weights and runs, not with this file."
    return ["## Published by others", text, table(rows)]


def index_entries(own: Record, task: Task) -> list[Any]:
    """Entries of ``model-index``: what the task's networks are judged by, at every T, then costs."""
    from huggingface_hub import EvalResult

    data, split = data_of(own), split_of(own)
    if not data:
        return []
    sizes = {k: own.measured[k] for k in ("samples", "of") if own.measured.get(k) is not None}
    found = [entry for key, value in own.metrics.items() if (entry := _entry(key, value, own, task))]
    found.sort(key=lambda entry: entry[0] in costs(task))
    return [
        EvalResult(
            task_type=task.pipeline_tag,
            dataset_type=own.dataset_id if own.dataset_id and data == own.dataset else slug(data),
            dataset_name=data,
            dataset_split=split,
            dataset_args=sizes or None,
            metric_type=kind,
            metric_name=name,
            metric_value=float(f"{value:.6g}"),
        )
        for kind, name, value in found
    ]


def _entry(key: str, value: float, own: Record, task: Task) -> tuple[str, str, float] | None:
    """Type, name and value of one metric; None if the Hub does not list it."""
    step, steps = task.step_of(key), own.time_steps
    short = task.headline if step is not None else key.rpartition("/")[2]
    spent = costs(task)
    metric = spent.get(short) or task.metrics.get(short)
    if metric is None or metric.hub is None:
        return None
    if short in spent:
        return metric.hub, f"{metric.label}, {metric.unit}", value
    if step is None:
        return metric.hub, f"{metric.label}, T = {steps}" if steps else metric.label, value
    if not steps:  # a network without time has one step
        return None
    if own.conversion is None:
        return metric.hub, f"{metric.label} after {step} of {steps} steps", value
    # a converted network was run, or made, for this T
    return None if step == steps else (metric.hub, f"{metric.label}, T = {step}", value)
