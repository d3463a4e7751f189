"""Trained networks are used by their names, without a YAML file."""

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import zoo
from cli import networks
from cli.commands import evaluate
from cli.main import main
from datamodules import DigitsDataModule, MNIST5kDataModule

NANO = "spiking_cnn_nano"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def digits():
    """Three test digits as files, and their classes."""
    data = MNIST5kDataModule()
    data.setup("test")
    for row in (0, 400, 800):
        label = int(data.test_set.targets[row])
        pixels = data.test_set.images[data.test_set.rows[row]][0]
        Path(f"images/{label}").mkdir(parents=True)
        Image.fromarray(pixels).save(f"images/{label}/{row}.png")
    return "images"


def table(path="predictions.csv"):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_images_of_a_folder_are_classified(digits, capsys):
    main(["predict", NANO, digits, "--top-k", "2"])
    rows = table()
    assert len(rows) == 3
    model, transform = zoo.load(NANO), zoo.transform(zoo.load(NANO))
    for row in rows:
        assert row["label"] == Path(row["path"]).parent.name
        with torch.no_grad(), Image.open(row["path"]) as image:
            expected = model(transform(image)[None]).softmax(dim=1).max()
        assert float(row["probability"]) == pytest.approx(float(expected), abs=2e-6)
        assert float(row["probability"]) >= float(row["probability_2"])
    assert "3 predictions written to predictions.csv" in capsys.readouterr().out
    main(["predict", NANO, digits])
    assert "predictions.1.csv" in capsys.readouterr().out  # nothing is overwritten


def test_a_damaged_image_costs_its_own_prediction_only(digits, capsys):
    main(["predict", NANO, digits, "--output", "whole.csv"])
    Path("images/0/cut.png").write_bytes(next(Path("images").rglob("*.png")).read_bytes()[:80])
    with pytest.warns(UserWarning, match="cannot read the image images/0/cut.png"):
        told = refused(capsys, "predict", NANO, digits, "--batch-size", "1")
    assert "1 of 4 images could not be read; predictions.csv has the others" in told
    assert table() == table("whole.csv")


def test_a_data_set_is_classified_with_its_true_classes(capsys):
    main(["predict", NANO, "mnist5k", "--output", "out.csv", "--batch-size", "500"])
    rows = table("out.csv")
    right = sum(row["label"] == row["true_label"] for row in rows)
    assert len(rows) == 1000
    recorded = zoo.describe(NANO).weights["mnist5k_t4"].metrics["test/acc1"]
    assert right / 1000 == pytest.approx(recorded, abs=0.003)
    assert f"{right} of 1000 are right" in capsys.readouterr().out


def test_a_test_by_name_is_the_command_of_a_file():
    words = evaluate.translated([NANO, "--batch-size", "500", "--trainer.devices", "1"])
    assert words[0] == "test"
    assert "--data=MNIST5kDataModule" in words  # as the weights say
    assert f"--model.init_args.model={NANO}" in words
    assert "--data.init_args.eval_batch_size=500" in words
    assert words[-2:] == ["--trainer.devices", "1"]


def test_a_network_is_tested_on_its_own_data(capsys):
    main(["test", NANO, "--batch-size", "500", "--trainer.enable_progress_bar", "false"])
    (report,) = Path("runs").rglob("report.json")
    metrics = json.loads(report.read_text())["metrics"]
    recorded = zoo.describe(NANO).weights["mnist5k_t4"].metrics
    assert metrics["test/acc1"] == pytest.approx(recorded["test/acc1"], abs=0.003)
    assert metrics["test/acc1_t1"] == pytest.approx(recorded["test/acc1_t1"], abs=0.003)
    assert "energy" in capsys.readouterr().out


def test_information_about_entries_and_places(capsys):
    main(["info", NANO])
    text = capsys.readouterr().out
    assert "117,882" in text
    assert "mean" in text
    zoo.save(zoo.load(NANO), "exported")
    main(["info", "exported"])
    text = " ".join(capsys.readouterr().out.split())
    for part in (f"network {NANO}", "time steps T = 4", "LIF", "K = 10", 'zoo.load("exported")'):
        assert part in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["info", "spiking_cnn_nao"], "did you mean 'spiking_cnn_nano'?"),
        (["predict", NANO, "nothing.png"], "no such file or folder: nothing.png"),
        (["predict", NANO, "mnist5"], "did you mean 'mnist5k'?"),
        (["predict", "sew_resnet18", "mnist5k"], "sew_resnet18 has no weights"),
        (["predict", "runs/nothing", "x.png"], "no such file or folder: runs/nothing"),
        (["predict", NANO, "mnist5k", "--top-k", "0"], "--top-k must be at least 1"),
        (["predict", NANO, "mnist5k", "--device", "tpu9"], "--device tpu9"),
        (["test", NANO, "cifar100"], "100"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(capsys, words, expected):
    text = refused(capsys, *words)
    assert expected in text
    assert "Traceback" not in text


def test_data_of_other_classes_are_refused(capsys):
    network = zoo.create(NANO, num_classes=7)
    with pytest.raises(networks.CommandError, match="has 7 classes, but DigitsDataModule has 10"):
        networks.check_fits(network, DigitsDataModule(), "mine")


def test_names_of_data_sets():
    found = networks.data_sets()
    for name in ("mnist5k", "digits", "fashion_mnist", "cifar10", "cifar100", "nmnist", "dvs_gesture"):
        assert name in found, sorted(found)
    model = zoo.load(NANO)
    for word in ("mnist5k", "MNIST5k", "mnist-5k"):
        assert networks.data_of(word, model).kind is MNIST5kDataModule
