"""Runs and conversions side by side: means over seeds, every T, and what was not measured alike."""

import csv
import json
import math
from pathlib import Path

import pytest

import zoo
from cli.main import main
from lightning_modules.side_by_side import Spread, outcome, rows
from zoo.files.layout import RUNS

MEASURED = {"data": "D", "split": "test", "samples": 100, "of": 100}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(name, seed=0, measured=MEASURED, **metrics):
    folder = Path(RUNS) / name
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
    folder = Path(RUNS) / name
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def seeds():
    for seed, (first, last) in enumerate([(0.70, 0.90), (0.72, 0.92), (0.74, 0.97)]):
        write(f"m-a-seed{seed}", seed, acc1=last, acc1_t1=first, acc1_t2=last, energy_mj=0.001 * (seed + 1))


def test_seeds_are_one_row_of_means(seeds):
    (row,) = rows([outcome(path, path.name) for path in sorted(Path(RUNS).iterdir())])
    assert (row.name, row.seeds, row.time_steps) == ("m-a", (0, 1, 2), 2)
    assert row.quality[2].mean == pytest.approx(0.93)
    assert row.quality[2].deviation == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2))
    assert row.energy_uj[2] == Spread(pytest.approx(2.0), pytest.approx(1.0), 3)


def test_a_conversion_has_energy_and_latency_at_every_t():
    (row,) = rows([outcome(write_conversion(), "x")])
    assert row.quality[4].mean == pytest.approx(0.9)
    assert [row.energy_uj[t].mean for t in (1, 2, 4)] == pytest.approx([2.0, 4.0, 8.0])
    assert row.latency == {1: 2, 2: 4, 4: 8}
    assert row.energy_share.mean == pytest.approx(0.5)
    assert math.isnan(row.quality[4].deviation)


def test_the_table_the_file_and_the_figure(seeds, capsys):
    write_conversion()
    main(["compare", "runs/m-a-seed*", "conversion-x", "spiking_cnn_nano", "--output", "out/all"])
    text = capsys.readouterr().out
    for part in (
        "m-a",
        "93.00 ± 3.61%",
        "conversion-x",
        "90.00%",
        "spiking_cnn_nano",
        "98.80%",
    ):
        assert part in text, text
    assert "not measured on the same samples" in text
    with open("out/all.csv", newline="") as file:
        found = {(row["run"], int(row["T"])): row for row in csv.DictReader(file)}
    assert found["m-a", 2]["seeds"] == "0 1 2"
    assert float(found["m-a", 1]["value"]) == pytest.approx(0.72)
    assert found["m-a", 1]["energy_uj"] == ""  # measured at the last T alone
    assert float(found["conversion-x", 2]["energy_uj"]) == pytest.approx(4.0)
    assert Path("out/all.png").stat().st_size > 10_000
    assert "time steps T" in Path("out/all.svg").read_text()


def test_a_folder_that_is_named_twice_counts_once(seeds, capsys):
    main(["compare", "runs/m-a-seed0", "m-a-seed*", "--output", "all"])
    with open("all.csv", newline="") as file:
        assert {row["seeds"] for row in csv.DictReader(file)} == {"0 1 2"}


def test_runs_of_one_name_in_two_places_are_two_rows(seeds, capsys):
    write("m-a-seed3", 3, acc1=0.5, acc1_t2=0.5).rename(Path("m-a-seed3"))
    main(["compare", "runs/m-a-seed*", "m-a-seed3"])
    with open("comparison.csv", newline="") as file:
        found = {row["run"]: row["seeds"] for row in csv.DictReader(file)}
    assert found == {"runs/m-a": "0 1 2", "m-a-seed3": "3"}


def test_other_qualities_are_compared_in_their_own_words(capsys):
    for name, value in (("a", 101.5), ("b", 98.25)):
        folder = write(name, **{"return": value, "return_std": 1.0})
        content = json.loads((folder / "report.json").read_text())
        (folder / "report.json").write_text(json.dumps({**content, "task": "control"}))
    main(["compare", "a", "b"])
    text = capsys.readouterr().out
    assert "mean return of an episode" in text
    assert "98.25" in text
    assert "%" not in text


def test_what_zoo_save_wrote_is_compared_by_its_description(capsys):
    network = zoo.create("spiking_cnn_nano", channels=(4, 4, 4, 4))
    zoo.save(network, "saved", metrics={"test/acc1": 0.75, "test/acc1_t4": 0.75}, seed=5, dataset="D")
    main(["compare", "saved"])
    assert "75.00%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["m-a-sed0"], "no run, folder or entry is called 'm-a-sed0'; did you mean 'm-a-seed0'?"),
        (["sew_resnet18"], "sew_resnet18 has no weights that were measured"),
        (["runs/untested"], "test it first: fulgurite test runs/untested"),
        (["runs/images"], "runs/images is no run, conversion or saved network: it has neither report.json"),
        (["runs/m-a-seed*", "runs/m-a-seed9"], "the seeds of m-a have different T"),
        (["runs/m-a-seed*", "runs/m-a"], "seed 0 of m-a is there 2 times: m-a-seed0"),
        (
            ["runs/m-a-seed*", "runs/agent"],
            "no quality in common: classification, control",
        ),
    ],
)
def test_what_cannot_be_compared(seeds, capsys, words, expected):
    Path("runs/untested/checkpoints").mkdir(parents=True)
    Path("runs/images").mkdir()
    if "runs/m-a-seed9" in words:
        write("m-a-seed9", 9, acc1=0.5, acc1_t1=0.5, acc1_t3=0.5)
    if "runs/m-a" in words:
        write("m-a", 0, acc1=0.5, acc1_t2=0.5)
    if "runs/agent" in words:
        write("agent", 0, **{"return": 1.0})
        report = json.loads(Path("runs/agent/report.json").read_text())
        Path("runs/agent/report.json").write_text(json.dumps({**report, "task": "control"}))
    with pytest.raises(SystemExit) as ended:
        main(["compare", *words])
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err
