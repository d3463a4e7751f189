"""Runs and conversions side by side: means over seeds, every T, and what was not measured alike."""

import csv
import json
import math
from pathlib import Path

import pytest

from cli.main import main
from lightning_modules.side_by_side import Spread, outcome, rows

MEASURED = {"data": "D", "split": "test", "samples": 100, "of": 100}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(name, seed=0, measured=MEASURED, **metrics):
    folder = Path("runs") / name
    folder.mkdir(parents=True)
    values = {f"test/{key}": value for key, value in metrics.items()}
    (folder / "report.json").write_text(json.dumps({"metrics": values, "seed": seed, "measured": measured}))
    return folder


def write_conversion(name="conversion-x"):
    def point(t):
        energy = 0.002 * t
        return {
            "time_steps": t,
            "latency": 2 * t,
            "accuracy": 0.5 + 0.1 * t,
            "energy_mj": energy,
            "firing_rate": 0.1,
        }

    told = {"samples": 100, "ann_energy_mj": 0.016, "points": [point(t) for t in (1, 2, 4)]}
    content = {"comparison": told, "recipe": {"time_steps": 4}, "seed": 0, "measured": MEASURED}
    folder = Path("runs") / name
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def seeds():
    for seed, (first, last) in enumerate([(0.70, 0.90), (0.72, 0.92), (0.74, 0.97)]):
        write(f"m-a-seed{seed}", seed, acc1=last, acc1_t1=first, acc1_t2=last, energy_mj=0.001 * (seed + 1))


def test_seeds_are_one_row_of_means(seeds):
    (row,) = rows([outcome(path) for path in sorted(Path("runs").iterdir())])
    assert (row.name, row.seeds, row.time_steps) == ("m-a", (0, 1, 2), 2)
    assert row.accuracy[2].mean == pytest.approx(0.93)
    assert row.accuracy[2].deviation == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2))
    assert row.energy_uj[2] == Spread(pytest.approx(2.0), pytest.approx(1.0), 3)


def test_a_conversion_has_energy_and_latency_at_every_t():
    (row,) = rows([outcome(write_conversion())])
    assert row.accuracy[4].mean == pytest.approx(0.9)
    assert [row.energy_uj[t].mean for t in (1, 2, 4)] == pytest.approx([2.0, 4.0, 8.0])
    assert row.latency == {1: 2, 2: 4, 4: 8}
    assert row.energy_share.mean == pytest.approx(0.5)
    assert math.isnan(row.accuracy[4].deviation)


def test_the_table_the_file_and_the_figure(seeds, capsys):
    write_conversion()
    main(["compare", "runs/m-a-seed*", "conversion-x", "spiking_cnn_nano", "--output", "out/all"])
    text = capsys.readouterr().out
    for part in (
        "m-a",
        "93.00 ± 3.61 %",
        "conversion-x",
        "90.00 %",
        "8 steps",
        "spiking_cnn_nano",
        "98.80 %",
    ):
        assert part in text, text
    assert "not measured on the same samples" in text
    with open("out/all.csv", newline="") as file:
        found = {(row["run"], int(row["T"])): row for row in csv.DictReader(file)}
    assert found["m-a", 2]["seeds"] == "0 1 2"
    assert float(found["m-a", 1]["accuracy"]) == pytest.approx(0.72)
    assert found["m-a", 1]["energy_uj"] == ""  # measured at the last T alone
    assert float(found["conversion-x", 2]["energy_uj"]) == pytest.approx(4.0)
    assert Path("out/all.png").stat().st_size > 10_000
    assert "time steps T" in Path("out/all.svg").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["m-a-sed0"], "no run and no network is called 'm-a-sed0'; did you mean 'm-a-seed0'?"),
        (["sew_resnet18"], "sew_resnet18 has no weights whose accuracy was measured"),
        (["runs/untested"], "test it first: fulgurite test runs/untested"),
        (["runs/m-a-seed*", "runs/m-a-seed9"], "the seeds of m-a have different T"),
    ],
)
def test_what_cannot_be_compared(seeds, capsys, words, expected):
    Path("runs/untested").mkdir()
    if "runs/m-a-seed9" in words:
        write("m-a-seed9", 9, acc1=0.5, acc1_t1=0.5, acc1_t3=0.5)
    with pytest.raises(SystemExit) as ended:
        main(["compare", *words])
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err
