"""``fulgurite compare``: runs and conversions in one table and one figure."""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import CommandError, did_you_mean, fail

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightning_modules.side_by_side import Row, Spread

MOST_STEPS = 8  # columns of T on the screen; the file has all


def run(words: Sequence[str]) -> None:
    """Compare.

    Args:
        words: options after ``fulgurite compare``.
    """
    parser = argparse.ArgumentParser(
        prog="fulgurite compare",
        description="Accuracy at every T, energy and latency of runs and conversions, side by side: a table,"
        " a figure and a file. Runs of one name that end in -seed0, -seed1, ... are one row, their mean and"
        " standard deviation.",
        epilog="several seeds: for s in 0 1 2; do fulgurite fit --config stbp/mnist5k --seed_everything $s"
        " --test_after_fit true; done; fulgurite compare 'runs/stbp-mnist5k-seed*'",
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folders, names in runs/, patterns of these, or entries' weights",
    )
    parser.add_argument(
        "--output", default="comparison", help="what is written: OUTPUT.csv, .png and .svg; comparison"
    )
    _compare(parser.parse_args(list(words)))


def _compare(options: Any) -> None:
    from cli.run.folder import check_output
    from lightning_modules import figures, side_by_side

    output = Path(options.output)
    if output.suffix in (".csv", ".png", ".svg"):
        output = output.with_suffix("")
    check_output(output.with_name(f"{output.name}.csv"))
    try:
        found = side_by_side.rows(list(_outcomes(options.runs)))
    except ValueError as error:
        raise CommandError(str(error)) from error
    _show(found)
    table = output.with_name(f"{output.name}.csv")
    _write(found, table)
    picture = figures.save(figures.side_by_side(found), output.with_name(f"{output.name}.png"), svg=True)
    print(f"written: {table}, {picture} and {picture.with_suffix('.svg').name}")


def _outcomes(words: Sequence[str]) -> Iterator[Any]:
    import zoo
    from lightning_modules.side_by_side import of_metrics, outcome
    from zoo.registry import split_tag

    for word in words:
        folders = list(_folders(word))
        yield from map(outcome, folders)
        if folders:
            continue
        if not zoo.is_registered(word):
            known = [path.name for path in Path("runs").glob("*")] if Path("runs").is_dir() else []
            fail(f"no run and no network is called '{word}'{did_you_mean(Path(word).name, known)}")
        base, tag = split_tag(word)
        weights = zoo.describe(base).weights
        cfg = weights.get(tag or next(iter(weights), ""))
        if cfg is None or "test/acc1" not in cfg.metrics:
            fail(f"{word} has no weights whose accuracy was measured")
        yield of_metrics(word, cfg.metrics, cfg.seed, {"data": cfg.dataset, **(cfg.measured or {})})


def _folders(word: str) -> Iterator[Path]:
    """Folders that a word means: one that is there, a name in ``runs``, or a pattern of either."""
    for place in (Path(word), Path("runs") / word):
        if place.is_dir():
            yield place
            return
    if set(word) & set("*?["):
        absolute = Path(word).is_absolute()
        base, pattern = (Path(word).anchor, word.lstrip("/")) if absolute else (".", word)
        for root in (Path(base), Path("runs")):
            found = sorted(path for path in root.glob(pattern) if (path / "report.json").is_file())
            if found:
                yield from found
                return


def _percent(value: Spread) -> str:
    spread = "" if math.isnan(value.deviation) else f" ± {100 * value.deviation:.2f}"
    return f"{100 * value.mean:.2f}{spread} %"


def _number(value: Spread | None, digits: int = 3) -> str:
    if value is None:
        return "-"
    spread = "" if math.isnan(value.deviation) else f" ± {value.deviation:.{digits}g}"
    return f"{value.mean:.{digits}g}{spread}"


def _show(rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    steps = sorted({t for row in rows for t in row.accuracy})
    if len(steps) > MOST_STEPS:
        steps = sorted({row.time_steps for row in rows} | {t for t in steps if t & (t - 1) == 0})[
            -MOST_STEPS:
        ]
    table = Table(box=None, pad_edge=False)
    table.add_column("run", overflow="fold")
    heads = (
        "seeds",
        "T",
        "accuracy",
        *(f"at T = {t}" for t in steps),
        "latency",
        "rate",
        "energy, uJ",
        "of ANN",
    )
    for head in heads:
        table.add_column(head, justify="right")
    for row in rows:
        energy = row.energy_uj.get(row.time_steps)
        table.add_row(
            escape(row.name),
            str(len(row.seeds)),
            str(row.time_steps),
            _percent(row.accuracy[row.time_steps]) if row.time_steps in row.accuracy else "-",
            *(_percent(row.accuracy[t]) if t in row.accuracy else "-" for t in steps),
            f"{row.latency.get(row.time_steps, row.time_steps)} steps",
            _number(row.firing_rate),
            _number(energy),
            _number(row.energy_share, 2),
        )
    console = Console()
    if not console.is_terminal:
        console.width = 160  # a pipe has no width
    console.print(table, highlight=False)
    texts = list(dict.fromkeys(text for row in rows for text in row.measured))
    if len(texts) == 1:
        console.print(f"measured on {texts[0]}", highlight=False)
    else:
        console.print("not measured on the same samples:", highlight=False)
        for row in rows:
            console.print(f"  {row.name}: {'; '.join(row.measured)}", highlight=False, markup=False)


def _write(rows: Sequence[Row], path: Path) -> None:
    """One line for each network and T."""
    from zoo.files.atomic import replacing

    head = ("run", "seeds", "T", "latency_steps", "accuracy", "accuracy_std", "energy_uj", "energy_uj_std")
    with replacing(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*head, "measured_on"])
        for row in rows:
            seeds = " ".join(str(seed) for seed in row.seeds)
            for t, accuracy in row.accuracy.items():
                energy = row.energy_uj.get(t)
                cells = [
                    row.name,
                    seeds,
                    t,
                    row.latency.get(t, t),
                    accuracy.mean,
                    _or_empty(accuracy.deviation),
                ]
                cells += ["", ""] if energy is None else [energy.mean, _or_empty(energy.deviation)]
                writer.writerow([*cells, "; ".join(row.measured)])


def _or_empty(value: float) -> float | str:
    return "" if math.isnan(value) else value
