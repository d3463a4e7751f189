"""``fulgurite info NAME``: what is known about one network, wherever it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.console import terminal
from cli.errors import CommandError, summary
from cli.words import WordParser

if TYPE_CHECKING:
    from collections.abc import Sequence

    Rows = list[tuple[str, str]]


def run(words: Sequence[str]) -> None:
    """Tell about a network.

    Args:
        words: options after ``fulgurite info``.
    """
    parser = WordParser(
        prog="fulgurite info",
        description="All that is known about one network: sizes, T, how its images are prepared, what its"
        " weights reach and where they are from. Weights of a folder are read; those of the Hub are fetched.",
    )
    parser.add_argument(
        "name", help="an entry of the zoo, timm/NAME, a folder, a run (runs/NAME), or hf-hub:OWNER/NAME"
    )
    _tell(parser.parse_args(list(words)).name)


def _tell(name: str) -> None:
    import zoo
    from zoo import locate

    try:
        if locate.is_location(name):
            rows = _of_place(name)
        else:
            described = zoo.describe(name)
            title, *lines = str(described).splitlines()
            rows = [("name", title), *((line[:13].strip(), line[13:].strip()) for line in lines)]
            # other networks take no images to prepare, and some of them fill no memory of this machine
            if described.task == "classification" and not name.startswith("timm/"):
                model = zoo.load(name, pretrained=bool(described.weights))
                rows += [row for row in _preparation(model) if row[0] == "preprocessing"]
    except (zoo.UnknownModelError, zoo.CheckpointError, ValueError, TypeError, OSError) as error:
        raise CommandError(summary(error)) from error
    rows.append(("load it", f'zoo.load("{name}")'))
    _show(rows)


def _of_place(name: str) -> Rows:
    import spiking
    import zoo
    from zoo.rebuild import architecture_of

    model: Any = zoo.load(name, pretrained=True)
    task = zoo.task_of(model)
    arguments = getattr(model, "model_args", None) or getattr(model, "recipe", None) or {}
    neurons = sorted({type(m).__name__ for m in model.modules() if isinstance(m, spiking.Neuron)})
    rows = [
        ("name", name),
        ("network", architecture_of(model) or type(model).__name__),
        ("arguments", ", ".join(f"{key}={value}" for key, value in arguments.items()) or "-"),
        ("task", task.name),
        ("parameters", f"{sum(p.numel() for p in model.parameters()):,}"),
        ("time steps", f"T = {model.time_steps}" if neurons or hasattr(model, "recipe") else "none, an ANN"),
        *([("neurons", ", ".join(neurons))] if neurons else []),
        *_preparation(model),
    ]
    labels = getattr(model, "label_names", None) or []
    if labels:
        rows.append(("labels", ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")))
    return rows + _recorded(name, task)


def _preparation(model: Any) -> Rows:
    """How images are prepared, for networks of images."""
    import zoo

    cfg = getattr(model, "pretrained_cfg", None)
    if not cfg or "input_size" not in cfg:
        return []
    facts = zoo.get_task("classification").facts(dict(cfg))
    return [(label.lower(), value) for label, value in facts if label != "Classes"] + (
        [("classes", f"K = {model.num_classes}")] if getattr(model, "num_classes", None) else []
    )


def _recorded(name: str, task: Any) -> Rows:
    """What the folder of a network, or of a run, states about its weights."""
    from lightning_modules.record import read_report
    from zoo import locate
    from zoo.files.description import read_description
    from zoo.files.layout import CONFIG_FILE

    if locate.is_remote(name):
        return [("card", f"https://huggingface.co/{name.partition(':')[2].partition('@')[0]}")]
    place = locate.place_of(name)
    folder = place if place.is_dir() else place.parent
    if (folder / CONFIG_FILE).is_file():
        own = read_description(folder).recorded
        told = {
            "data": own.dataset,
            "method": own.method,
            "command": own.command,
            "seed": own.seed,
            "licence": own.licence,
        }
        metrics: Any = own.metrics
    else:
        report = read_report(folder.parent if place.suffix == ".ckpt" else folder)
        training = report.get("training") or {}
        told = {
            "data": (training.get("data") or {}).get("name"),
            **{key: training.get(key) for key in ("method", "command", "seed")},
        }
        metrics = report.get("metrics") or {}
    rows = [(key, str(value)) for key, value in told.items() if value is not None]
    return rows + [
        (f"test {metric.label}", metric.text(metrics[f"test/{key}"]))
        for key, metric in task.metrics.items()
        if isinstance(metrics.get(f"test/{key}"), int | float)
    ]


def _show(rows: Rows) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows:
        table.add_row(key, escape(value))
    terminal().print(table, highlight=False)
