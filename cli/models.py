"""``fulgurite models``: the zoo as a table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(words: Sequence[str]) -> None:
    """Print the table of models.

    Args:
        words: options after ``fulgurite models``.
    """
    parser = argparse.ArgumentParser(
        prog="fulgurite models",
        description="List the networks: parameters, T, input, weights, paper.",
    )
    parser.add_argument(
        "pattern",
        nargs="?",
        default="*",
        help="shell pattern or part of a name: 'spikingresformer*', resnet; '-' and '_' are the same",
    )
    parser.add_argument("--pretrained", action="store_true", help="only those that have weights")
    options = parser.parse_args(list(words))
    _print_table(options.pattern, options.pretrained)


def _print_table(pattern: str, pretrained: bool) -> None:
    import zoo
    from cli._errors import did_you_mean
    from cli.main import fail

    names = zoo.list_models(pattern)
    if not names and not set(pattern) & set("*?["):
        names = zoo.list_models(f"*{pattern}*")
    if not names:
        known = zoo.list_models()
        hint = did_you_mean(zoo.normalize_name(pattern), known)
        fail(f"no model matches '{pattern}'{hint or '; fulgurite models lists all'}")
    rows = [zoo.describe(name) for name in names]
    if pretrained:
        rows = [row for row in rows if row.weights]

    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("name", "parameters", "T", "input", "classes", "weights", "paper"):
        table.add_column(
            title,
            justify="right" if title in ("parameters", "T", "classes") else "left",
            no_wrap=title == "name",
            overflow="fold",
        )
    for row in rows:
        table.add_row(
            row.name,
            f"{row.parameters:,}",
            str(row.time_steps),
            "x".join(str(n) for n in row.input_size),
            str(row.num_classes),
            ", ".join(row.weights) or "-",
            f"arXiv {row.paper}" if row.paper else "-",
        )
    console = Console()
    if not console.is_terminal:
        console.width = 160  # a pipe has no width; 80 columns would fold the names of weights
    console.print(table)
