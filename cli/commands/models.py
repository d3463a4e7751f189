"""``fulgurite models``: the zoo as a table."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from cli.console import terminal
from cli.errors import did_you_mean, fail
from cli.words import WordParser

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zoo import Description

MANY = 60  # of timm's models; more of them are named, but not built to count their parameters
SIZES = {"k": 1e3, "m": 1e6, "g": 1e9, "": 1.0}


def run(words: Sequence[str]) -> None:
    """Print the table of models.

    Args:
        words: options after ``fulgurite models``.
    """
    parser = WordParser(
        prog="fulgurite models",
        description="List the networks: parameters, T, input, weights, paper; one of them in full.",
    )
    parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        help="shell pattern or part of a name: 'spikingresformer*', resnet, 'timm/*resnet*'; '-' and '_' are"
        " the same",
    )
    parser.add_argument("--pretrained", action="store_true", help="only those that have weights")
    parser.add_argument("--task", help="only those for a task: classification, ...")
    parser.add_argument("--family", help="only those of a family: sew_resnet, spikingresformer, ...")
    parser.add_argument("--paper", metavar="ARXIV_ID", help="only those of a paper: 2403.14302")
    parser.add_argument("--max-params", metavar="N", help="only those with at most N parameters: 20M, 150k")
    parser.add_argument("--macs", action="store_true", help="count the MACs of one dense pass, too")
    options = parser.parse_args(list(words))
    _print(options)


def parameters(text: str) -> float:
    """``"20M"`` -> 20,000,000.

    >>> parameters("150k")
    150000.0
    """
    found = re.fullmatch(r"([\d_.]+)\s*([kKmMgG]?)", text.strip())
    try:
        if found:
            return float(found[1].replace("_", "")) * SIZES[found[2].lower()]
    except ValueError:
        pass
    raise ValueError(f"--max-params must be a number such as 20M, 150k or 11000000, got {text!r}")


def _print(options: Any) -> None:
    import zoo

    try:
        limit = None if options.max_params is None else parameters(options.max_params)
    except ValueError as error:
        fail(str(error))
    listed = partial(zoo.list_models, task=options.task, family=options.family, paper=options.paper)
    names = _names(options, listed)
    plain = options.pattern.startswith("timm/") and len(names) > MANY
    if plain and limit is not None:
        fail(f"{len(names)} models of timm match; --max-params builds each: narrow the pattern to {MANY}")
    if plain:
        names = listed(options.pattern, pretrained=options.pretrained)
        _show_names(names)
        return
    if options.pretrained:  # also entries that mean nothing without the arguments which their weights bring
        trained = {name.partition(".")[0] for name in listed(options.pattern, pretrained=True)}
        source = "timm/*" if options.pattern.startswith("timm/") else "*"
        known = {name.partition(".")[0] for name in listed(source, pretrained=True)}
        names = sorted(trained | (known & set(names)))
    rows = [zoo.describe(name) for name in names]
    if limit is not None:
        rows = [row for row in rows if row.parameters is not None and row.parameters <= limit]
    if not rows:
        fail(f"no model matches '{options.pattern}' with these filters; leave one out")
    _show(rows, options.macs)


def _names(options: Any, listed: Callable[[str], list[str]]) -> list[str]:
    import zoo
    from zoo.registry import get_entry

    pattern = options.pattern
    names = listed(pattern)
    if not names and not set(pattern) & set("*?["):
        prefix, _, rest = pattern.rpartition("/")
        wide = f"{prefix}/*{rest}*" if prefix else f"*{pattern}*"
        names = listed(wide)
    if names:
        return names
    everything = zoo.list_models()
    for key in ("task", "family", "paper"):
        if (asked := getattr(options, key)) is not None and not pattern.startswith("timm/"):
            known = sorted({str(getattr(get_entry(n), key)) for n in everything} - {"None"})
            if asked not in known:
                fail(f"no model has --{key} {asked}{did_you_mean(asked, known)}; known: {', '.join(known)}")
    hint = did_you_mean(zoo.normalize_name(pattern), everything)
    fail(f"no model matches '{pattern}'{hint or '; fulgurite models lists all'}")


def _show(rows: list[Description], macs: bool) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    tasks = len({row.task for row in rows}) > 1
    titles = ["name", *(["task"] if tasks else []), "parameters", *(["MACs"] if macs else [])]
    titles += ["T", "input", "classes", "weights", "paper"]
    for title in titles:
        table.add_column(
            title,
            justify="right" if title in ("parameters", "MACs", "T", "classes") else "left",
            no_wrap=title == "name",
            overflow="fold",
        )
    for row in rows:
        cells = [
            row.name,
            *([row.task] if tasks else []),
            "-" if row.parameters is None else f"{row.parameters:,}",
        ]
        cells += ["-" if row.macs is None else f"{row.macs:,}"] if macs else []
        cells += [str(row.time_steps) if row.spiking else "-"]
        cells += ["x".join(str(n) for n in row.input_size or ()) or "-"]
        cells += ["-" if row.num_classes is None else str(row.num_classes), _weights(row)]
        table.add_row(*cells, f"arXiv {row.paper}" if row.paper else "-")
    console = terminal()
    console.print(table)
    if len(rows) == 1:
        console.print()
        console.print(str(rows[0]), highlight=False, markup=False)


def _weights(row: Description) -> str:
    """Tags, with the task's headline metric where we measured it."""
    import zoo

    found = []
    for tag, cfg in row.weights.items():
        task = zoo.get_task(row.task)
        value = cfg.metrics.get(f"test/{task.headline}")
        metric = task.metrics[task.headline]
        text = "" if value is None else f"{value:.1%}" if metric.share else metric.text(value)
        found.append(f"{tag} ({text})" if text else tag)
    return ", ".join(found) or "-"


def _show_names(names: list[str]) -> None:
    console = terminal()
    for name in names:
        console.print(name, highlight=False, markup=False)
    console.print(f"{len(names)} models of timm; a pattern that matches at most {MANY} shows their sizes")
