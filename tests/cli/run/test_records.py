"""What a run's report and card say: on which samples, by which commands, and nothing else."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from cli.main import main
from cli.run.package import export_run
from zoo.hub.push import prepare

TINY = {"time_steps": 2, "channels": [4, 8], "pool_size": 1}


def write_images(root, splits):
    random = np.random.default_rng(0)
    for split, count in splits.items():
        for k, name in enumerate(("bright", "dark")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 128, (8, 8), dtype=np.uint8) + 127 * k
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{i}.png")


def config(root, model="spiking_cnn_nano", args=TINY, **data):
    return {
        "seed_everything": 3,
        "test_after_fit": True,
        "model": {"class_path": "ClassificationTask", "init_args": {"model": model, "model_args": args}},
        "data": {
            "class_path": "ImageFolderDataModule",
            "init_args": {"root": str(root), "in_chans": 1, "batch_size": 8, "num_workers": 0, **data},
        },
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "devices": 1,
            "enable_progress_bar": False,
            "log_every_n_steps": 1,
            "callbacks": [{"class_path": "FiringRate"}],
        },
    }


def fit(name, settings, *words):
    Path("m").mkdir(exist_ok=True)
    Path(f"m/{name}.yaml").write_text(yaml.safe_dump(settings))
    main(["fit", "--config", f"m/{name}.yaml", *words])
    return Path(f"runs/m-{name}")


def report_of(run):
    return json.loads((run / "report.json").read_text())


def card_of(run, target):
    folder = export_run(run, target)
    return ModelCard((folder / "README.md").read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images without a test folder, and a run on them."""
    folder = tmp_path_factory.mktemp("records")
    before = Path.cwd()
    os.chdir(folder)
    try:
        write_images(Path("mine"), {"train": 20, "val": 6})
        write_images(Path("other"), {"train": 2, "val": 6})
        fit("run", config("mine"))
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def run(place, tmp_path, monkeypatch):
    shutil.copytree(place, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return Path("runs/m-run")


def test_the_split_is_named_wherever_a_number_stands(run, tmp_path):
    report = report_of(run)
    assert {key: report["measured"][key] for key in ("split", "samples", "of")} == {
        "split": "validation",
        "samples": 12,
        "of": 12,
    }
    chosen = report["training"]["chosen"]
    assert (chosen["split"], chosen["samples"], chosen["by"]) == ("held out of train", 4, ["val/acc1"])
    text = (run / "report.md").read_text()
    assert "validation accuracy" in text
    assert "test accuracy" not in text
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert {row["val/split"] for row in rows if row["val/acc1"]} == {"held out of train, 4 samples"}
    assert [row["test/split"] for row in rows if row["test/acc1"]] == ["validation, 12 samples"]
    card = card_of(run, tmp_path / "card")
    assert {entry.dataset_split for entry in card.data.eval_results} == {"validation"}
    assert "On 12 validation samples of images of the folder mine." in card.text
    assert "Trained on | 36 samples" in card.text
    assert "chosen on the same" not in card.text


def test_the_card_says_that_the_reported_samples_chose_the_checkpoint(run, tmp_path):
    other = fit("chosen", config("mine", val="val"))
    assert "The checkpoint was chosen on the same samples" in (other / "report.md").read_text()
    assert "* The checkpoint was chosen on the same samples" in card_of(other, tmp_path / "card").text
    main(["test", "--config", str(other / "config.yaml"), "--ckpt_path", "last"])
    assert "* The checkpoint was chosen" not in card_of(other, tmp_path / "last").text  # nothing chose it


@pytest.mark.parametrize(
    "words",
    [
        ["--trainer.limit_test_batches", "0.5"],
        ["--data.root", "other"],
        ["--model.model_args.time_steps", "3"],
    ],
)
def test_another_test_leaves_the_record_alone(run, words, capsys):
    before = {p: p.read_bytes() for p in (run / "report.json", run / "report.md", *run.glob("figures/*"))}
    assert len(before) > 2
    main(["test", "--config", str(run / "config.yaml"), "--ckpt_path", "best", *words])
    assert "not the test of record" in capsys.readouterr().out
    assert all(path.read_bytes() == content for path, content in before.items())
    measured = json.loads((run / "test" / "report.json").read_text())["measured"]
    told = {"samples": measured["samples"], "data": measured["data"], "T": measured["time_steps"]}
    record = {"samples": 12, "data": "images of the folder mine", "T": 2}
    assert told != record
    assert len((run / "tests.jsonl").read_text().splitlines()) == 2


def test_a_foreign_checkpoint_leaves_the_record_alone(run):
    shutil.copytree(run, "elsewhere")
    before = (run / "report.json").read_bytes()
    path = Path("elsewhere/checkpoints/last.ckpt")
    main(["test", "--config", str(run / "config.yaml"), "--ckpt_path", str(path), "--seed_everything", "9"])
    assert (run / "report.json").read_bytes() == before
    main(["test", "--config", str(run / "config.yaml"), "--ckpt_path", "best", "--seed_everything", "9"])
    assert export_seed(run) == 3  # of the training, whatever the test was seeded with


def export_seed(run):
    return json.loads((export_run(run, run / "hub") / "config.json").read_text())["fulgurite"]["seed"]


def test_only_a_partial_test_is_known_as_one(run, tmp_path):
    words = ["--trainer.limit_test_batches", "0.5", "--trainer.limit_train_batches", "2"]
    other = fit("part", config("mine"), *words)
    card = card_of(other, tmp_path / "card").text
    assert "On 8 of the 12 validation samples of images of the folder mine." in card
    assert "* Only 8 of the 12 samples were measured." in card
    assert "limit_train_batches = 2" in card
    main(
        [
            "test",
            "--config",
            str(other / "config.yaml"),
            "--ckpt_path",
            "best",
            "--trainer.limit_test_batches",
            "2",
        ]
    )
    assert "On 12 validation samples" in card_of(other, tmp_path / "whole").text


def test_a_resumed_run_tells_all_of_it(run, tmp_path):
    first = report_of(run)["training"]
    words = ["--trainer.max_epochs", "2", "--ckpt_path", "last"]
    main(["fit", "--config", "m/run.yaml", *words])
    training = report_of(run)["training"]
    assert training["command"] == first["command"] == "fulgurite fit --config m/run.yaml"
    assert training["resumed"] == [f"fulgurite fit --config m/run.yaml {' '.join(words)}"]
    assert training["minutes"] >= first["minutes"]
    assert training["epochs"] == 2
    card = card_of(run, tmp_path / "card").text
    assert "Command | `fulgurite fit --config m/run.yaml`" in card
    assert (
        "Continued by | `fulgurite fit --config m/run.yaml --trainer.max_epochs 2 --ckpt_path last`" in card
    )


def test_an_ann_of_ones_own_is_no_spiking_network_and_nobody_elses(run, tmp_path):
    settings = config("mine", "timm/test_resnet", {})
    settings["trainer"]["callbacks"] = []
    other = fit("ann", settings)
    card = card_of(other, tmp_path / "card")
    assert "Method | training of an ANN by back-propagation; loss: ce" in card.text
    for word in ("STBP", "1706", "Derived from"):
        assert word not in card.text
    assert "spiking-neural-network" not in card.data.tags
    assert "README.md" in prepare(tmp_path / "card")  # no licence is asked for
