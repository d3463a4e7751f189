"""What was measured, as tables for people and as the Hub's ``model-index``; the task says what counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.files.card.markdown import slug, table
from zoo.tasks import COSTS

if TYPE_CHECKING:
    from zoo.files.description import Record
    from zoo.tasks import Task

ENERGY_NOTE = (
    "Energy is an estimate from counted operations: 4.6 pJ a MAC, 0.9 pJ an addition (45 nm,"
    " Horowitz, ISSCC 2014), without memory traffic and neuron updates."
)


def measured(own: Record, task: Task) -> list[str]:
    """What we measured with these weights."""
    if not own.metrics:
        return ["## Measured", "Nothing was measured with these weights."]
    headline = task.metrics[task.headline]
    by_step = {t: v for k, v in own.metrics.items() if (t := task.step_of(k)) is not None}
    short = {k.rpartition("/")[2]: v for k, v in own.metrics.items() if task.step_of(k) is None}
    parts = ["## Measured", task.tested.format(own.dataset) if own.dataset else ""]
    if by_step:
        head = ("T", *(str(t) for t in sorted(by_step)))
        parts.append(table([head, (headline.label, *(headline.text(by_step[t]) for t in sorted(by_step)))]))
    rows: list[tuple[str, ...]] = [("quantity", "value")]
    rows += [(metric.label, metric.text(short[key])) for key, metric in task.metrics.items() if key in short]
    rows += [(COSTS[k].label, COSTS[k].text(v)) for k, v in short.items() if k in COSTS]
    rows += [(k, f"{v:.6g}") for k, v in short.items() if k not in COSTS and k not in task.metrics]
    parts.append(table(rows))
    return [*parts, *([ENERGY_NOTE] if "energy_mj" in short else [])]


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

    if not own.dataset:
        return []
    found = [entry for key, value in own.metrics.items() if (entry := _entry(key, value, own, task))]
    found.sort(key=lambda entry: entry[0] in COSTS)
    return [
        EvalResult(
            task_type=task.pipeline_tag,
            dataset_type=own.dataset_id or slug(own.dataset),
            dataset_name=own.dataset,
            dataset_split="test",
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
    metric = COSTS.get(short) or task.metrics.get(short)
    if metric is None or metric.hub is None:
        return None
    if short in COSTS:
        return metric.hub, f"{metric.label}, {metric.unit}", value
    if step is None:
        return metric.hub, f"{metric.label}, T = {steps}" if steps else metric.label, value
    if not steps:  # a network without time has one step
        return None
    if own.conversion is None:
        return metric.hub, f"{metric.label} after {step} of {steps} steps", value
    # a converted network was run, or made, for this T
    return None if step == steps else (metric.hub, f"{metric.label}, T = {step}", value)
