"""Tables of the documentation that are made from measurements."""

import csv
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))
import _generate  # noqa: E402 - lies beside the pages


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


def test_the_shipped_measurements_fit_the_table(tmp_path):
    source = ROOT / "benchmarks" / "token_table.csv"
    _generate.write_token_table(source, tmp_path / "table.md")
    text = (tmp_path / "table.md").read_text()
    with source.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["accuracy"]]
    assert rows
    assert all(f"{float(row['accuracy']):.1%}" in text for row in rows)


def test_the_family_table_shows_what_was_measured(tmp_path):
    lines = ["name,pixels,code,time_steps,relative_error,layers_of_neurons"]
    lines += [f"vit,64,differential,{t},{1 / t:.5f},98" for t in (1, 4, 8)]
    lines += [f"vit,64,rate,{t},{3 / t:.5f},98" for t in (4, 16, 32)]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    _generate.write_family_table(tmp_path / "table.csv", tmp_path / "table.md")
    text = (tmp_path / "table.md").read_text()
    assert "| `vit` | 64 | 98 | 0.2500 | 0.1250 | 0.7500 | 0.1875 | 0.0938 | - | - |" in text
    assert "rate, T = 16" in text
