"""Tables of the documentation that are made from measurements."""

import csv
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import timm

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "docs"), str(ROOT / "benchmarks")]
import _generate  # noqa: E402 - lies beside the pages
import family_table  # noqa: E402 - lies beside the other benchmarks


def test_the_token_table_shows_what_was_measured(tmp_path):
    lines = [
        "set,network,keep,scorer,operator,accuracy,sops,energy_uj,ms,samples,date,note",
        "digits,qkformer,1.0,all tokens,,0.9790,4e6,4,2.0,1000,2026-11-25,",
        "digits,qkformer,0.7,uncert,remove,0.9770,3e6,3,1.5,1000,2026-11-25,",
        "digits,qkformer,0.3,uncert,remove,0.9650,1e6,1,0.5,1000,2026-11-25,",
        "digits,qkformer,0.3,tome,,,,,,1000,2026-11-25,merges pairs",
    ]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    _generate.write_token_table(tmp_path / "table.csv", tmp_path / "table.md")
    text = (tmp_path / "table.md").read_text()
    assert "**digits, qkformer**: 97.9% with all tokens, 4.00 M operations, 2.00 ms a sample" in text
    assert "| scorer | operator | keep 0.7 | keep 0.3 |" in text
    assert "| `uncert` | remove | 97.7% (0.75, 0.75) | 96.5% (0.25, 0.25) |" in text
    assert "| `tome` | refused | - | - |" in text


def test_the_weights_table_shows_what_was_recorded(tmp_path):
    _generate.write_weights_table(tmp_path / "table.md")
    row = next(
        line
        for line in (tmp_path / "table.md").read_text().splitlines()
        if "`spiking_cnn_nano.nmnist_t8`" in line
    )
    assert "98.0% of 100 (93.0% to 99.4%)" in row, "the interval that the card tells, too"
    assert "| 8 | 118,026 parameters, 0.48 MB |" in row
    assert "7.04 uJ (as an ANN 23.1 uJ)" in row


def test_the_shipped_measurements_fit_the_table(tmp_path):
    source = ROOT / "benchmarks" / "token_table.csv"
    _generate.write_token_table(source, tmp_path / "table.md")
    text = (tmp_path / "table.md").read_text()
    with source.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["accuracy"]]
    assert rows
    assert all(f"{float(row['accuracy']):.1%}" in text for row in rows)


def test_the_table_of_codes_shows_what_was_measured(tmp_path):
    lines = ["name,pixels,code,time_steps,relative_error,layers_of_neurons"]
    lines += [f"vit,64,differential,{t},{1 / t:.5f},98" for t in (1, 4, 8)]
    lines += [f"vit,64,rate,{t},{3 / t:.5f},98" for t in (4, 16, 32)]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    _generate.write_code_table(tmp_path / "table.csv", tmp_path / "table.md")
    text = (tmp_path / "table.md").read_text()
    assert "| `vit` | 64 | 98 | 0.2500 | 0.1250 | 0.7500 | 0.1875 | 0.0938 | - | - |" in text
    assert "rate, T = 16" in text


def test_the_family_table_shows_what_was_measured(tmp_path):
    told = {"pixels": 64, "rounding": 0.001, "layers_of_neurons": 9}
    rows = [
        {"module": "vit", "model": "tiny", "distance": {"1": 0.5, "16": 0.01}, **told},
        {"module": "cnn", "model": "small", "distance": {"1": 0.4, "16": 0.07}, **told},
        {"module": "rnn", "model": "big", "refused": "no rule", **told},
    ]
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _generate.write_family_table(tmp_path / "table.jsonl", tmp_path / "table.md")
    text = (tmp_path / "table.md").read_text()
    assert "Of the 3 modules measured so far 2 convert; at T = 16 the median distance is 0.0400" in text
    assert "the largest 0.0700, and 1 are below 0.05." in text
    assert "| `vit` | `tiny` | 64 | 0.0010 | 9 | 0.5000 | 0.0100 |" in text
    assert "| `rnn` | `big` | 64 | 0.0010 | refused | - | - |" in text


def test_the_family_table_is_of_the_modules_of_timm():
    source = ROOT / "benchmarks" / "family_table.jsonl"
    modules = [json.loads(line)["module"] for line in source.read_text().splitlines()]
    assert len(modules) == len(set(modules)) > 0
    assert set(modules) <= set(family_table.MODULES)
    known = {module for module in timm.list_modules() if find_spec(f"timm.models.{module}")}
    assert set(family_table.MODULES) == known, "others may register models with timm"
