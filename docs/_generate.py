"""Tables of the documentation that come from the code: the zoo's entries and the shipped runs."""

import csv
import json
import statistics
from pathlib import Path

from _browse import read_run

import zoo
from benchmarks._interval import interval
from zoo.files.layout import WEIGHTS_FILE
from zoo.files.weights import WeightsCfg


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write_zoo_table(path: Path) -> None:
    """One row per registered entry, as `zoo.describe` tells it."""
    rows = []
    for name in zoo.list_models():
        entry = zoo.describe(name)
        rows.append(
            [
                f"`{name}`",
                "unknown" if entry.parameters is None else f"{entry.parameters:,}",
                "-" if entry.macs is None else f"{entry.macs / 1e6:,.1f} M",
                str(entry.time_steps) if entry.spiking else "-",
                "x".join(map(str, entry.input_size or ())) or "-",
                ", ".join(f"`{tag}`" for tag in entry.weights) or "none",
                f"[{entry.paper}](https://arxiv.org/abs/{entry.paper})" if entry.paper else "this project",
            ]
        )
    header = ["entry", "parameters", "MACs", "T", "input", "weights that ship", "paper"]
    path.write_text(_table(header, rows))


def write_weights_table(path: Path) -> None:
    """One row per set of weights that ships: the paper's numbers and ours in columns of their own."""
    rows = []
    for full in zoo.list_models(pretrained=True):
        name, _, tag = full.partition(".")
        cfg = zoo.describe(name).weights[tag]
        rows.append(
            [
                f"`{full}`",
                cfg.dataset or "-",
                "-" if cfg.time_steps is None else str(cfg.time_steps),
                _size(cfg),
                _numbers(cfg.published),
                _reached(cfg),
                _energy(cfg.metrics),
                f"`{cfg.command}`, seed {cfg.seed}" if cfg.command else "-",
                cfg.licence or "-",
            ]
        )
    header = ["weights", "data", "T", "size", "published (theirs)", "measured (ours)", "energy", "made by"]
    path.write_text(_table([*header, "licence"], rows))


def _size(cfg: WeightsCfg) -> str:
    """Parameters, and the file that holds them."""
    file = Path(cfg.file or "") / WEIGHTS_FILE
    told = [f"{cfg.parameters:,} parameters"] if cfg.parameters else []
    return ", ".join([*told, *([f"{file.stat().st_size / 1e6:.2f} MB"] if file.is_file() else [])]) or "-"


def _reached(cfg: WeightsCfg) -> str:
    """The accuracy with its 95 % interval (Wilson), or whatever metrics there are."""
    accuracy, samples = cfg.metrics.get("test/acc1"), cfg.measured.get("samples")
    if accuracy is None or not samples:
        return _numbers(cfg.metrics)
    low, high = interval(accuracy, samples)
    return f"{accuracy:.1%} of {samples:,} ({low:.1%} to {high:.1%})"


def _energy(metrics: dict[str, float]) -> str:
    """Of one sample, and of the same network as an ANN."""
    spiking, analog = metrics.get("test/energy_mj"), metrics.get("test/ann_energy_mj")
    if spiking is None or analog is None:
        return "-"
    return f"{1e3 * spiking:.3g} uJ (as an ANN {1e3 * analog:.3g} uJ)"


def _numbers(values: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in values.items()) or "none"


def write_config_table(folder: Path, path: Path) -> None:
    """One row per shipped run: what it is of, the published number and ours, each in its own column."""
    rows = []
    for config in sorted(folder.rglob("*.yaml")):
        run = read_run(config, folder)
        cells = [f"`{run['config']}`", run["what"], run["published"], run["ours"], run["rest"]]
        rows.append([cell.replace("|", "\\|") for cell in cells])
    path.write_text(_table(["run", "what it is", "published (theirs)", "measured (ours)", "remarks"], rows))


def write_measured_table(table: Path, path: Path) -> None:
    """One row per finished run of ``benchmarks/real_runs.py``."""
    with table.open(newline="") as file:
        found = list(csv.DictReader(file))
    rows = [
        [
            f"`{row['config']}`",
            row["seed"],
            f"{float(row['test_acc1']):.2%}",
            f"{row['minutes']} min",
            f"{row['threads']} of {row['machine']}",
            row["date"],
        ]
        for row in found
    ]
    path.write_text(_table(["run", "seed", "test accuracy", "time", "threads", "date"], rows))


def write_conversion_table(table: Path, path: Path) -> None:
    """Accuracy at every T of the rows of ``benchmarks/conversion_table.py``, one table a source."""
    with table.open(newline="") as file:
        found = list(csv.DictReader(file))
    steps = sorted({int(row["time_steps"]) for row in found})
    text = []
    for name in dict.fromkeys(row["name"] for row in found):
        own = [row for row in found if row["name"] == name]
        samples, ann = own[0]["samples"], float(own[0]["ann_accuracy"])
        seed = f", source trained with seed {own[0]['seed']}" if own[0]["seed"] else ""
        text.append(f"**`{name}`**: ANN {ann:.2%}, {samples} test images{seed}\n")
        for title, cell in (
            ("Accuracy (agreement with the ANN)", _accuracy_cell),
            ("Energy, of the ANN's (mean relative error of the logits)", _energy_cell),
            ("Spikes a neuron and step; energy as the paper counts it / with everything charged", _full_cell),
        ):
            rows = []
            for method, settings in dict.fromkeys((row["method"], row["settings"]) for row in own):
                cells = {
                    int(row["time_steps"]): cell(row)
                    for row in own
                    if (row["method"], row["settings"]) == (method, settings)
                }
                rows.append([f"`{method}` {settings}", *(cells.get(t, "-") for t in steps)])
            text.append(f"{title}:\n\n" + _table(["method", *(f"T = {t}" for t in steps)], rows))
    path.write_text("\n".join(text))


def _accuracy_cell(row: dict[str, str]) -> str:
    return f"{float(row['accuracy']):.2%} ({float(row['agreement']):.1%})"


def _full_cell(row: dict[str, str]) -> str:
    ratios = [f"{float(v):.2f}" if v else "-" for v in (row["official_ratio"], row["full_ratio"])]
    return f"{float(row['firing_rate']):.3f}; {' / '.join(ratios)}"


def _energy_cell(row: dict[str, str]) -> str:
    return f"{float(row['energy_ratio']):.2f} ({float(row['logit_difference']):.3f})"


CODE_COLUMNS = {"differential": (4, 8), "rate": (4, 16, 32), "ecmt": (8, 32)}  # T shown of each code


def write_code_table(table: Path, path: Path) -> None:
    """Relative errors of ``benchmarks/code_table.py``, one row a family."""
    with table.open(newline="") as file:
        found = {(row["name"], row["code"], int(row["time_steps"])): row for row in csv.DictReader(file)}
    columns = [(code, t) for code, steps in CODE_COLUMNS.items() for t in steps]
    rows = []
    for name in dict.fromkeys(name for name, _, _ in found):
        own = [found.get((name, *column)) for column in columns]
        known = next(row for row in own if row is not None)
        errors = ["-" if row is None else f"{float(row['relative_error']):.4f}" for row in own]
        rows.append([f"`{name}`", known["pixels"], known["layers_of_neurons"], *errors])
    titles = {"differential": "differential", "rate": "rate", "ecmt": "ECMT"}
    header = ["family", "pixels", "neuron layers", *(f"{titles[code]}, T = {t}" for code, t in columns)]
    path.write_text(_table(header, rows))


def write_family_table(table: Path, path: Path) -> None:
    """Distances of ``benchmarks/family_table.py``, one row a module of timm, and what they are in all."""
    found = [json.loads(line) for line in table.read_text().splitlines()]
    steps = list(dict.fromkeys(t for row in found for t in row.get("distance", {})))
    rows, last = [], []
    for row in found:
        head = [f"`{row['module']}`", f"`{row['model']}`", str(row["pixels"]), f"{row['rounding']:.4f}"]
        if "refused" in row:
            rows.append([*head, "refused", *["-"] * len(steps)])
            continue
        last.append(row["distance"][steps[-1]])
        distances = [f"{row['distance'][t]:.4f}" for t in steps]
        rows.append([*head, str(row["layers_of_neurons"]), *distances])
    text = f"Of the {len(found)} modules measured so far {len(last)} convert"
    if last:
        below = sum(d < 0.05 for d in last)
        text += (
            f"; at T = {steps[-1]} the median distance is {statistics.median(last):.4f}, the largest"
            f" {max(last):.4f}, and {below} are below 0.05"
        )
    header = ["module", "model", "pixels", "rounding", "neuron layers", *(f"T = {t}" for t in steps)]
    path.write_text(f"{text}.\n\n" + _table(header, rows))


def write_token_table(table: Path, path: Path) -> None:
    """Accuracy and cost at every share of tokens, of ``benchmarks/token_table.py``, one table a network."""
    with table.open(newline="") as file:
        found = list(csv.DictReader(file))
    text = []
    for name, network in dict.fromkeys((row["set"], row["network"]) for row in found):
        own = [row for row in found if (row["set"], row["network"]) == (name, network)]
        whole = next(row for row in own if row["scorer"] == "all tokens")
        keeps = sorted({row["keep"] for row in own} - {whole["keep"]}, key=float, reverse=True)
        rows = []
        for scorer in dict.fromkeys(row["scorer"] for row in own if row is not whole):
            mine = {row["keep"]: row for row in own if row["scorer"] == scorer}
            operator = next((row["operator"] for row in mine.values() if row["operator"]), "refused")
            cells = [_token_cell(mine.get(keep), whole) for keep in keeps]
            notes = {row["note"] for row in mine.values() if row["note"].startswith("lambda")}
            rows.append([", ".join([f"`{scorer}`", *sorted(notes)]), operator, *cells])
        text.append(
            f"**{name}, {network}**: {float(whole['accuracy']):.1%} with all tokens,"
            f" {float(whole['sops']) / 1e6:.2f} M operations, {float(whole['ms']):.2f} ms a sample;"
            f" {whole['samples']} samples\n"
        )
        text.append(_table(["scorer", "operator", *(f"keep {keep}" for keep in keeps)], rows))
    path.write_text("\n".join(text))


def _token_cell(row: dict[str, str] | None, whole: dict[str, str]) -> str:
    if row is None or not row["accuracy"]:
        return "-"
    cost = [f"{float(row[key]) / float(whole[key]):.2f}" for key in ("sops", "ms")]
    return f"{float(row['accuracy']):.1%} ({', '.join(cost)})"


METHODS = {  # of benchmarks/hybrid_table.py, in the order of the table
    "source": "QCFS network (ANN)",
    "stbp": "STBP, LIF",
    "shortcut": "STBP, LIF, shortcuts",
    "lmht": "STBP, LM-HT",
    "converted": "QCFS, converted",
    "hybrid": "hybrid",
    "hybrid_official": "hybrid, `official_bias`",
}


def write_hybrid_table(table: Path, path: Path) -> None:
    """Rows of ``benchmarks/hybrid_table.py``: means over seeds, with the spread where there are several."""
    with table.open(newline="") as file:
        found = list(csv.DictReader(file))
    text = []
    for data in dict.fromkeys(row["data"] for row in found):
        own = [row for row in found if row["data"] == data]
        trained = _mean([row["minutes"] for row in own if row["method"] == "source"])
        rows = []
        for method, title in METHODS.items():
            for t in sorted({int(row["time_steps"]) for row in own if row["method"] == method}):
                same = [r for r in own if (r["method"], r["time_steps"]) == (method, str(t))]
                further = method in ("converted", "hybrid", "hybrid_official")  # on top of the source
                minutes = _mean([row["minutes"] for row in same]) + (trained if further else 0.0)
                rows.append(
                    [
                        title,
                        str(t),
                        _spread([row["accuracy"] for row in same]),
                        _spread([row["before"] for row in same if row["before"]]),
                        f"{_mean([r['start_gap'] for r in same]):.2f}" if same[0]["start_gap"] else "-",
                        "-" if method == "source" else f"{_mean([r['firing_rate'] for r in same]):.3f}",
                        f"{_mean([row['energy_uj'] for row in same]):.2f}",
                        f"{minutes:.1f}",
                        str(len(same)),
                    ]
                )
        head = [
            "method",
            "T",
            "accuracy",
            "before fine-tuning",
            "gap",
            "firing rate",
            "energy, uJ",
            "minutes",
            "seeds",
        ]
        text.append(f"**`{data}`**\n\n" + _table(head, rows))
    path.write_text("\n".join(text))


def write_tuning_table(table: Path, path: Path) -> None:
    """Conversions before and after fine-tuning, of the same file."""
    with table.open(newline="") as file:
        found = [row for row in csv.DictReader(file) if row["method"].startswith("tuned_")]
    rows = [
        [
            f"`{row['method'].removeprefix('tuned_')}`",
            row["time_steps"],
            f"{float(row['before']):.2%}",
            f"{float(row['accuracy']):.2%}",
            row["minutes"],
        ]
        for row in found
    ]
    path.write_text(_table(["method", "T", "before", "after", "minutes"], rows))


def _mean(values: list[str]) -> float:
    return statistics.fmean(float(value) for value in values) if values else 0.0


def _spread(values: list[str]) -> str:
    """Mean and standard deviation in percent."""
    numbers = [100 * float(value) for value in values]
    if not numbers:
        return "-"
    mean = f"{statistics.fmean(numbers):.2f}"
    return f"{mean} ± {statistics.stdev(numbers):.2f} %" if len(numbers) > 1 else f"{mean} %"


def write_nir_table(table: Path, path: Path) -> None:
    """Rows of ``benchmarks/nir_table.py``: our files in other libraries, then theirs here."""
    with table.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    ours = [row for row in found if row["writer"] == "Fulgurite"]
    readers = list(dict.fromkeys(row["library"] for row in ours))
    rows = []
    for network in dict.fromkeys(row["network"] for row in ours):
        told = {row["library"]: row["outcome"] for row in ours if row["network"] == network}
        rows.append([network, *(_cell(told[reader]) for reader in readers)])
    theirs = [[r["library"], r["network"], _cell(r["outcome"])] for r in found if r["writer"] != "Fulgurite"]
    path.write_text(
        "Our files there:\n\n"
        + _table(["network", *readers], rows)
        + "\nTheir files here:\n\n"
        + _table(["library", "network", "outcome"], theirs)
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
