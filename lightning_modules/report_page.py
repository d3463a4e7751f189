"""One page of HTML that says what a test or a conversion came to, whole in itself."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import zoo
from lightning_modules.callbacks.run_report import lines
from lightning_modules.record import REPORT, read_report, split_text
from zoo.files.atomic import write_text
from zoo.files.layout import FIGURES, SETTINGS_FILE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PAGE = "report.html"
SETTINGS = ("config.yaml", SETTINGS_FILE)
STYLE = """
:root { --ink: #1a202c; --grey: #667085; --line: #e4e7ec; --back: #f8f9fb; --card: #fff; --blue: #2b6cb0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --grey: #98a2b3; --line: #333a46; --back: #14181f; --card: #1c222b; }
  :root { --blue: #74a9e6; }
  img { background: #fff; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem; }
.under, figcaption, dt { color: var(--grey); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; }
.tiles { margin: 1.8rem 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .9rem 1rem; }
.tile b { display: block; font-size: 1.5rem; color: var(--blue); font-weight: 650; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .9rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th { font-weight: 600; color: var(--grey); }
.numbers td, .numbers th { text-align: right; white-space: nowrap; }
figure { margin: 0 0 1.2rem; }
img { max-width: 100%; height: auto; border: 1px solid var(--line); border-radius: .6rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .9rem 1rem; font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere; }
code { overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Rows:
    """A table; without a head its first column names what the second says."""

    title: str
    rows: Sequence[Sequence[str]]
    head: Sequence[str] = ()


@dataclass(frozen=True)
class Told:
    """What a report says, in the order of the page."""

    title: str
    under: str
    tiles: Sequence[tuple[str, str]]
    tables: Sequence[Rows]
    commands: Sequence[str]


def write_page(folder: Path) -> Path:
    """Write ``report.html`` from what a test or a conversion left in a folder.

    Args:
        folder: with ``report.json``; its figures and settings go into the page.

    Returns:
        The page. It asks for no other file and no address.

    Raises:
        ValueError: nothing was measured there.
        OSError: the page cannot be written; an earlier one stays whole.
    """
    report = read_report(folder)
    if "comparison" in report:
        told = _of_conversion(report)
    elif "metrics" in report:
        told = _of_test(report)
    else:
        raise ValueError(f"{folder / REPORT} has no measurements; test the run first")
    parts = [
        f"<h1>{escape(told.title)}</h1>",
        f'<p class="under">{escape(told.under)}</p>',
        '<div class="tiles">',
        *(f'<div class="tile"><b>{escape(v)}</b>{escape(k)}</div>' for k, v in told.tiles),
        "</div>",
        *_figures(folder / FIGURES),
        *(_table(table) for table in told.tables if table.rows),
        *_block("Commands", "\n".join(dict.fromkeys(filter(None, told.commands)))),
        *_settings(folder),
    ]
    page = folder / PAGE
    write_text(page, _whole(told.title, parts))
    return page


def _whole(title: str, parts: Sequence[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


# -- what is told ----------------------------------------------------------------------------------


def _of_test(report: dict[str, Any]) -> Told:
    training: dict[str, Any] = report.get("training") or {}
    measured: dict[str, Any] = report.get("measured") or {}
    rows = [row for row in lines(report) if row[0] not in ("checkpoint", "figure")]
    task = zoo.get_task(report.get("task", "classification"))
    tiles = [(k, v.split(" (")[0].split(f" per {task.per}")[0]) for k, v in rows if _is_headline(k, v)]
    made = [
        ("Method", training.get("method")),
        ("Trained on", _samples(training.get("train"))),
        ("Epochs", training.get("epochs")),
        ("Time", f"{training['minutes']:g} minutes" if training.get("minutes") is not None else None),
        ("Checkpoint", report.get("checkpoint")),
    ]
    return Told(
        title=str(report.get("model")),
        under=split_text(measured) if measured else "",
        tiles=tiles[:4],
        tables=[
            Rows("Results", rows),
            Rows("How it was made", _known(made)),
            Rows("Environment", _environment({**training, **measured, "seed": report.get("seed")})),
        ],
        commands=[training.get("command", ""), *training.get("resumed", []), measured.get("command", "")],
    )


def _is_headline(label: str, value: str) -> bool:
    return bool(label) and label != "measured on" and ": " not in value and len(value) < 60


def _of_conversion(report: dict[str, Any]) -> Told:
    comparison, made = report["comparison"], report["conversion"]
    points = comparison["points"]
    steps = report["recipe"].get("time_steps") or points[-1]["time_steps"]
    here = next((p for p in points if p["time_steps"] == steps), points[-1])
    ann = comparison["ann_energy_mj"]
    head = ("T", "latency", "accuracy", "same as the ANN", "firing rate", "SOPs", "energy", "of the ANN's")
    rows = [
        (
            str(p["time_steps"]),
            str(p["latency"]),
            f"{p['accuracy']:.2%}",
            f"{p['agreement']:.2%}",
            f"{p['firing_rate']:.4f}",
            f"{p['sops']:,.0f}",
            f"{p['energy_mj'] * 1e3:,.2f} uJ",
            f"{p['energy_mj'] / ann:.2f}",
        )
        for p in points
    ]
    rows.append(("ANN", "", f"{comparison['ann_accuracy']:.2%}", "", "", "", f"{ann * 1e3:,.2f} uJ", "1.00"))
    seconds = report.get("seconds")
    facts = [("Source", report["source"].get("model")), ("Calibration", _plain(report.get("calibration")))]
    facts += [(k.replace("_", " ").capitalize(), _plain(v)) for k, v in made.items() if _is_plain(v)]
    return Told(
        title=f"{report['source'].get('model')} by {made.get('method') or report['recipe'].get('method')}",
        under=split_text(report.get("measured") or {}),
        tiles=[
            (f"accuracy at T = {here['time_steps']}", f"{here['accuracy']:.2%}"),
            ("accuracy of the ANN", f"{comparison['ann_accuracy']:.2%}"),
            ("firing rate", f"{here['firing_rate']:.4f}"),
            ("of the ANN's energy", f"{here['energy_mj'] / ann:.2f}"),
        ],
        tables=[
            Rows("At every T", rows, head),
            Rows("How it was made", _known(facts)),
            Rows(
                "Environment",
                _known(
                    [
                        ("Seed", report.get("seed")),
                        ("Time", None if seconds is None else f"{seconds:g} s"),
                        ("Date", report.get("date")),
                    ]
                ),
            ),
        ],
        commands=[report.get("command") or ""],
    )


def _environment(told: dict[str, Any]) -> list[tuple[str, str]]:
    programs = ", ".join(f"{name} {version}" for name, version in (told.get("versions") or {}).items())
    return _known(
        [
            ("Hardware", told.get("hardware")),
            ("Precision", told.get("precision")),
            ("Versions", programs),
            ("Seed", told.get("seed")),
            ("Date", told.get("date")),
        ]
    )


def _samples(told: dict[str, Any] | None) -> str | None:
    return f"{told['samples']:,} samples ({told['name']})" if told and told.get("samples") else None


def _known(rows: Sequence[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(label, str(value)) for label, value in rows if value not in (None, "", [], {})]


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{k} = {v}" for k, v in value.items() if v is not None)
    return f"{value:g}" if isinstance(value, float) else value


# -- how it looks ----------------------------------------------------------------------------------


def _table(table: Rows) -> str:
    kind = ' class="numbers"' if table.head else ""
    head = "".join(f"<th>{escape(name)}</th>" for name in table.head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    inner = f"<thead><tr>{head}</tr></thead>" if head else ""
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="wide"><table{kind}>{inner}<tbody>{body}</tbody></table>'
        "</div>"
    )


def _figures(folder: Path) -> list[str]:
    found = sorted(folder.glob("*.png"))
    parts = ["<h2>Figures</h2>"] if found else []
    for path in found:
        name = escape(path.stem.replace("_", " "))
        data = base64.b64encode(path.read_bytes()).decode()
        picture = f'<img alt="{name}" src="data:image/png;base64,{data}">'
        parts.append(f"<figure>{picture}<figcaption>{name}</figcaption></figure>")
    return parts


def _block(title: str, text: str) -> list[str]:
    return [f"<h2>{title}</h2>\n<pre><code>{escape(text)}</code></pre>"] if text else []


def _settings(folder: Path) -> list[str]:
    for name in SETTINGS:
        if (folder / name).is_file():
            text = escape((folder / name).read_text(encoding="utf-8"))
            return [
                f"<h2>Settings</h2>\n<details><summary>{name}</summary><pre><code>{text}</code></pre></details>"
            ]
    return []
