"""The table of ONNX files, from what ``benchmarks/export.py`` has measured."""

import json
from pathlib import Path
from typing import Any

from _generate import _cell, _table

FORMS = ("T=4", "T=1", "one step")
TIMES = ("eager_ms", "torch.compile_ms", "onnxruntime_ms")


def write_export_table(table: Path, path: Path) -> None:
    """Lines of ``benchmarks/export.py``: equal or not in every form, and milliseconds beside PyTorch."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for line in map(json.loads, table.read_text().splitlines()):
        found.setdefault(line["name"], {})[line["form"]] = line
    rows, refused = [], []
    for name, forms in found.items():
        whole = forms.get("whole") or forms.get("T=4") or {}
        exact = (
            [_exact(whole), "", "no steps"]
            if "whole" in forms
            else [_exact(forms.get(form, {})) for form in FORMS]
        )
        times = [f"{whole[key]:.2f}" if whole.get(key) else "" for key in TIMES]
        size = f"{whole['megabytes']:g}" if whole.get("megabytes") else ""
        rows.append([f"`{name}`", whole.get("input", ""), *exact, size, *times])
        refused += [
            f"* `{name}`, {form}: {_cell(line['refused'])}\n"
            for form, line in forms.items()
            if "refused" in line
        ]
    header = ["network", "input", *FORMS, "MB", "eager", "`torch.compile`", "onnxruntime"]
    path.write_text(_table(header, rows) + (f"\nRefused:\n\n{''.join(refused)}" if refused else ""))


def _exact(line: dict[str, Any]) -> str:
    if "refused" in line:
        return "refused"
    if not line:
        return ""
    silent = ", silent" if "silent" in line["checked"] else ""
    return f"{'equal' if line['gap'] <= 1e-4 else 'spikes at thresholds'}, {line['gap']:.0e}{silent}"
