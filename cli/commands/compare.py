"""``fulgurite compare``: runs, conversions and published networks in one table and one figure."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.console import terminal
from cli.errors import CommandError, did_you_mean, fail
from cli.words import WordParser

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightning_modules.side_by_side import Outcome, Row, Spread
    from zoo import Metric

MOST_STEPS = 6  # columns of T on the screen; the file has all
WRITTEN = (".csv", ".png", ".svg")


def run(words: Sequence[str]) -> None:
    """Compare.

    Args:
        words: options after ``fulgurite compare``.
    """
    parser = WordParser(
        prog="fulgurite compare",
        description="Accuracy at every T, energy and latency of runs and conversions, side by side: a table,"
        " a figure and a file. Runs of one name that end in -seed0, -seed1, ... are one row, their mean and"
        " standard deviation.",
        epilog="several seeds: for s in 0 1 2; do fulgurite fit --config stbp/mnist5k --seed_everything $s"
        " --test_after_fit true; done; fulgurite compare 'stbp-mnist5k-seed*'",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folders of runs, of conversions or of zoo.save, their names in runs/, patterns of these, or"
        " entries that have weights",
    )
    parser.add_argument(
        "--output",
        default="comparison",
        metavar="NAME",
        help="what is written: NAME.csv, NAME.png and NAME.svg; comparison",
    )
    _compare(parser.parse_args(list(words)))


def _compare(options: Any) -> None:
    from cli.run.folder import check_output
    from lightning_modules import figures, side_by_side

    output = Path(options.output)
    if output.suffix in WRITTEN:
        output = output.with_suffix("")
    table, picture, _ = (output.with_name(f"{output.name}{suffix}") for suffix in WRITTEN)
    try:
        found = side_by_side.rows(list(_outcomes(options.runs)))
    except ValueError as error:
        raise CommandError(str(error)) from error
    check_output(table)
    _show(found)
    _write(found, table)
    figures.save(figures.side_by_side(found), picture, svg=True)
    print(f"written: {table}, {picture} and {picture.with_suffix('.svg').name}")


# -- what is meant ---------------------------------------------------------------------------------


def _outcomes(words: Sequence[str]) -> Iterator[Outcome]:
    from lightning_modules.side_by_side import outcome

    meant = {word: list(_folders(word)) for word in words}
    folders = {folder.resolve(): folder for found in meant.values() for folder in found}  # each once
    names = _names(list(folders.values()))
    for word, found in meant.items():
        for folder in found:
            if folders.pop(folder.resolve(), None) is not None:
                yield outcome(folder, names[folder.resolve()])
        if not found:
            yield _published(word)


def _folders(word: str) -> Iterator[Path]:
    """Folders that a word means: one that is there, a name in ``runs``, or a pattern of either."""
    from lightning_modules.record import REPORT
    from zoo.files.layout import CONFIG_FILE, RUNS

    path = Path(word).expanduser()
    for place in (path, RUNS / path):
        if place.is_dir():
            yield place
            return
    if set(word) & set("*?["):
        inside = path.relative_to(path.anchor)  # a pattern has no root
        for root in (Path(path.anchor), RUNS / Path(path.anchor)):
            places = sorted(root.glob(str(inside)))
            if found := [p for p in places if (p / REPORT).is_file() or (p / CONFIG_FILE).is_file()]:
                yield from found
                return


def _names(folders: Sequence[Path]) -> dict[Path, str]:
    """What folders are called: by their last part, or by their path where others elsewhere are called so."""
    from lightning_modules.side_by_side import without_seed

    places = {folder.resolve(): str(folder) for folder in folders}
    parents: dict[str, set[Path]] = {}
    for place in places:
        parents.setdefault(without_seed(place.name), set()).add(place.parent)
    return {
        place: place.name if len(parents[without_seed(place.name)]) == 1 else typed
        for place, typed in places.items()
    }


def _published(word: str) -> Outcome:
    """What is recorded of the weights of an entry."""
    import zoo
    from cli.networks import published
    from lightning_modules.side_by_side import of_metrics
    from zoo.files.layout import RUNS, names_in

    if not zoo.is_registered(word):
        known = names_in(RUNS) + zoo.list_models()
        fail(f"no run, folder or entry is called '{word}'{did_you_mean(Path(word).name, known)}")
    described, cfg = published(word)
    if cfg is None:
        fail(f"{word} has no weights that were measured; fulgurite models --pretrained lists those that have")
    measured = {"time_steps": described.time_steps, "data": cfg.dataset, **(cfg.measured or {})}
    return of_metrics(word, described.task, cfg.metrics, cfg.seed, measured)


# -- what is shown ---------------------------------------------------------------------------------


def _value(metric: Metric, value: Spread | None) -> str:
    if value is None:
        return "-"
    if math.isnan(value.deviation):
        return metric.text(value.mean)
    if metric.share:
        return f"{100 * value.mean:.2f} ± {100 * value.deviation:.2f}%"
    return f"{_number(value, 4)} {metric.unit}".rstrip()


def _number(value: Spread | None, digits: int = 3) -> str:
    if value is None:
        return "-"
    if math.isnan(value.deviation):
        return f"{value.mean:.{digits}g}"
    size = math.floor(math.log10(abs(value.mean))) if value.mean else 0
    decimals = max(0, digits - 1 - size)
    return f"{value.mean:.{decimals}f} ± {value.deviation:.{decimals}f}"


def _steps(rows: Sequence[Row]) -> list[int]:
    """Every T of some row, or of many the powers of two, and those of the networks themselves."""
    steps = {t for row in rows for t in row.quality}
    if len(steps) > MOST_STEPS:
        steps = {t for t in steps if t & (t - 1) == 0} | {row.time_steps for row in rows}
    return sorted(steps)


def _show(rows: Sequence[Row]) -> None:
    from rich.markup import escape
    from rich.table import Table

    metric, steps = rows[0].metric, _steps(rows)
    table = Table(box=None, pad_edge=False, title=f"{metric.label} at every T", title_justify="left")
    table.add_column("run", overflow="fold", min_width=max(len(row.name) for row in rows))
    for head in ("seeds", "T", *(f"T = {t}" for t in steps), "latency", "rate", "uJ", "of ANN"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        last = row.time_steps
        table.add_row(
            escape(row.name),
            str(len(row.seeds)),
            str(last),
            *(_value(metric, row.quality.get(t)) for t in steps),
            str(row.latency.get(last, last)),
            _number(row.firing_rate),
            _number(row.energy_uj.get(last)),
            _number(row.energy_share, 2),
        )
    console = terminal()
    console.print(table, highlight=False)
    console.print(
        "latency: steps until the output is there; rate: spikes per neuron and step; uJ: energy of a sample;"
        " of ANN: by that of the same network as an ANN; ±: standard deviation over seeds (N - 1)",
        highlight=False,
    )
    texts = list(dict.fromkeys(text for row in rows for text in row.measured))
    if len(texts) == 1:
        console.print(f"measured on {texts[0]}", highlight=False, markup=False)
        return
    console.print("not measured on the same samples:", highlight=False)
    for row in rows:
        console.print(f"  {row.name}: {'; '.join(row.measured)}", highlight=False, markup=False)


HEAD = ("run", "metric", "seeds", "T", "latency_steps", "value", "value_std", "energy_uj", "energy_uj_std")


def _write(rows: Sequence[Row], path: Path) -> None:
    """One line for each network and T."""
    from zoo.files.atomic import replacing

    with replacing(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*HEAD, "measured_on"])
        for row in rows:
            seeds = " ".join("?" if seed is None else str(seed) for seed in row.seeds)
            for t, value in row.quality.items():
                energy = row.energy_uj.get(t)
                cells = [row.name, row.metric.label, seeds, t, row.latency.get(t, t)]
                cells += [value.mean, _or_empty(value.deviation)]
                cells += ["", ""] if energy is None else [energy.mean, _or_empty(energy.deviation)]
                writer.writerow([*cells, "; ".join(row.measured)])


def _or_empty(value: float) -> float | str:
    return "" if math.isnan(value) else value
