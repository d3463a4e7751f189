"""``fulgurite configs``: the runs that come with the package, with the papers' numbers and ours."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from cli.console import terminal
from cli.errors import did_you_mean, fail
from cli.shipped_configs import find_config, read_comment, shipped_names
from cli.words import WordParser

if TYPE_CHECKING:
    from collections.abc import Sequence

CONVERSIONS = "conversion/"  # these are for `fulgurite convert`


def run(words: Sequence[str]) -> None:
    """Print the table of runs, one of them in full, or copy one.

    Args:
        words: options after ``fulgurite configs``.
    """
    parser = WordParser(
        prog="fulgurite configs",
        description="List the runs that come with the package: what each is of, the number that its paper"
        " publishes, and ours where we measured it. One of them in full; or a copy of it to edit.",
    )
    parser.add_argument(
        "pattern",
        nargs="?",
        help="shell pattern or part of a name: 'stbp/*', mnist5k; else a word of what a run is of: N-MNIST",
    )
    parser.add_argument(
        "--copy",
        nargs="?",
        const="",
        metavar="FILE",
        help="write the one run that PATTERN names to FILE, to edit it; METHOD-DATASET.yaml if missing",
    )
    options = parser.parse_args(list(words))
    if options.pattern is None and options.copy:  # --copy NAME
        options.pattern, options.copy = options.copy, ""
    names = matching(options.pattern or "*")
    if options.copy is not None:
        _copy(options.pattern, names, options.copy)
    elif len(names) == 1:
        _show_one(names[0])
    else:
        _show(names)


def matching(pattern: str) -> list[str]:
    """Names of shipped runs that a pattern is meant for: one name, a shell pattern, a part, or a word.

    Raises:
        SystemExit: there is none.
    """
    everything = shipped_names()
    plain = pattern.removeprefix("configs/").removesuffix(".yaml").lower()
    ways = (
        lambda name: name == plain,
        lambda name: fnmatchcase(name, plain),
        lambda name: plain in name,
        lambda name: re.search(rf"\b{re.escape(pattern)}\b", _text(name), re.I),
    )
    for fits in ways:
        if found := [name for name in everything if fits(name)]:
            return found
    fail(f"no run is called '{pattern}'{did_you_mean(plain, everything) or '; fulgurite configs lists all'}")


def _text(name: str) -> str:
    told = read_comment(_path(name))
    return f"{told.what} {told.remarks}"


def _path(name: str) -> Path:
    path = find_config(name)
    assert path is not None, name  # names come from the same folder
    return path


def _command(name: str) -> str:
    return f"fulgurite {'convert' if name.startswith(CONVERSIONS) else 'fit'} --config {name}"


def _copy(pattern: str | None, names: list[str], target: str) -> None:
    if pattern is None:
        fail("name the run to copy: fulgurite configs stbp/mnist5k --copy")
    if len(names) > 1:
        near = ", ".join(names[:5])
        fail(f"{len(names)} runs match '{pattern}' ({near}, ...); name one of them to copy it")
    path = Path(target or f"{names[0].replace('/', '-')}.yaml")
    if path.is_dir():
        path = path / f"{names[0].replace('/', '-')}.yaml"
    if path.exists():
        fail(f"{path} is there already; name another file: --copy FILE")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_path(names[0]).read_bytes())
    print(f"written: {path}. Edit it, then: {_command(names[0]).rpartition(' ')[0]} {path}")


def _show_one(name: str) -> None:
    told, path = read_comment(_path(name)), _path(name)
    rows = [
        ("what it is", told.what),
        ("published", told.published),
        ("measured by us", told.measured),
        ("remarks", told.remarks or "-"),
        ("run it", _command(name)),
        ("edit it", f"fulgurite configs {name} --copy"),
        ("file", str(path)),
    ]
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False, title=name, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    terminal().print(table, highlight=False, markup=False)


def _show(names: list[str]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("run", "published", "measured by us", "what it is"):
        table.add_column(title, no_wrap=title == "run", overflow="fold")
    for name in names:
        told = read_comment(_path(name))
        cells = [name, _short(told.published), _short(told.measured), _short(told.what)]
        table.add_row(*(escape(cell) for cell in cells))
    console = terminal()
    console.print(table, highlight=False)
    console.print(f"{len(names)} runs; one in full: fulgurite configs NAME", highlight=False)


def _short(text: str, most: int = 90) -> str:
    """The first sentence, or so much of it that a row stays short."""
    first = re.split(r"(?<=[a-z%)])[.;:] ", text, maxsplit=1)[0].removesuffix(".")
    return first if len(first) <= most else first[:most].rpartition(" ")[0] + " ..."
