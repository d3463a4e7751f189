"""Runs of regression, several labels and segmentation: trained a little, then tested and used by name."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import zoo
from cli.main import main

ROOT = Path(__file__).resolve().parents[2]
CNN = {"time_steps": 2, "channels": [4, 8], "pool_size": 1}
RUNS = {  # the network in a small form, and what is reported
    "regression/roads": (CNN, {"mae", "rmse", "r2"}),
    "multi_label/digits": (CNN, {"map", "f1", "exact"}),
    "segmentation/shapes": (
        {"time_steps": 2, "encoder_args": {"channels": [4, 8]}, "width": 4},
        {"miou", "pixel_acc"},
    ),
}


@pytest.fixture(scope="module", params=RUNS)
def trained(request, tmp_path_factory):
    """Name of the file, its run's name, and the folder that holds ``runs``."""
    place = tmp_path_factory.mktemp("targets")
    small = {"train_samples": 24, "val_samples": 8, "test_samples": 8, "batch_size": 8, "eval_batch_size": 4}
    words = [f"--data.init_args.{key}={value}" for key, value in small.items()]
    words += [f"--model.init_args.model_args={json.dumps(RUNS[request.param][0])}"]
    words += ["--trainer.max_epochs=2", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        main(["fit", "--config", request.param, *words])
    return request.param, request.param.replace("/", "-"), place


def test_a_run_is_tested_at_every_t(trained):
    config, name, place = trained
    report = json.loads((place / "runs" / name / "report.json").read_text())
    task = config.partition("/")[0].replace("_", "-")
    assert report["task"] == task
    headline, metrics = zoo.get_task(task).headline, report["metrics"]
    assert {f"test/{key}" for key in RUNS[config][1]} <= set(metrics)
    assert {f"test/{headline}_t1", f"test/{headline}_t2", "test/energy_mj", "test/firing_rate"} <= set(
        metrics
    )
    assert metrics[f"test/{headline}_t2"] == metrics[f"test/{headline}"]
    assert (place / "runs" / name / "figures" / "curves.png").is_file()


def test_it_is_loaded_published_and_used_by_name(trained, monkeypatch, capsys):
    config, name, place = trained
    monkeypatch.chdir(place)
    network = zoo.load(name)
    task = zoo.task_of(network)
    assert task.name == config.partition("/")[0].replace("_", "-")
    main(["publish", name, "--repo-id", "me/x", "--licence", "mit", "--dry-run"])
    card = (place / "runs" / name / "hub" / "README.md").read_text()
    assert task.call in card
    assert task.metrics[task.headline].label in card
    assert "top-1" not in card
    again = zoo.load(f"runs/{name}/hub")
    assert zoo.task_of(again) == task
    images = torch.rand(2, *zoo.transform(network).input_size)
    assert torch.equal(again(images), network(images))
    Image.fromarray(np.full((32, 32), 90, np.uint8)).save("one.png")
    main(["predict", name, "one.png"])
    assert "1 predictions written to" in capsys.readouterr().out
    if task.name == "segmentation":
        with Image.open("masks/one.png") as mask:
            assert mask.size == (32, 32)
            assert max(mask.tobytes()) < 4
        return
    with open("predictions.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row.pop("path") == "one.png"
    if task.name == "regression":
        assert float(row["steering angle, degrees"]) == pytest.approx(_said(network, "one.png"), rel=1e-3)
    else:
        assert set(row) == {"labels", *"0123456789"}
        assert row["labels"] == ";".join(k for k in "0123456789" if float(row[k]) >= 0.5)


def _said(network, path):
    with Image.open(path) as image, torch.no_grad():
        return float(network(zoo.transform(network)(image).unsqueeze(0)))


def test_every_such_file_is_here():
    folders = {name.partition("/")[0] for name in RUNS}
    files = {p for p in (ROOT / "configs").rglob("*.yaml") if p.parent.name in folders}
    assert {f"{path.parent.name}/{path.stem}" for path in files} == set(RUNS)
    assert all(yaml.safe_load(path.read_text())["test_after_fit"] for path in files)
