"""``fulgurite convert`` as a user types it."""

import json
from pathlib import Path

import pytest
import torch
import yaml

import zoo
from cli.main import main

MODEL = {"layers": [1, 1], "planes": [8, 16], "v_threshold": 2.0, "levels": 4}
DATA = {
    "class_path": "SyntheticDataModule",
    "init_args": {"image_size": 8, "in_chans": 1, "num_classes": 4, "batch_size": 16, "train_samples": 256},
}
CONFIG = {
    "source": {"model": "qcfs_resnet18", "model_args": MODEL, "pretrained": False},
    "method": "qcfs",
    "time_steps": 4,
    "evaluate_at": [1, 2, 4, 8],
    "data": DATA,
}
FOLDER = Path("runs/conversion-tiny")
PLAIN = ["--source.model_args={}", "--source.pretrained=null"]  # a place tells them itself
IMAGES = ["--source.model_args={}", "--data.init_args.in_chans=3", "--data.init_args.image_size=32"]


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("conversion/tiny.yaml")
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(CONFIG))
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run that has trained the source."""
    folder = tmp_path_factory.mktemp("source")
    path = folder / "tiny.yaml"
    task = {"model": "qcfs_resnet18", "model_args": MODEL, "lr": 0.01}
    trainer = {"max_epochs": 6, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
    trainer["default_root_dir"] = str(folder / "run")
    model = {"class_path": "ClassificationTask", "init_args": task}
    path.write_text(yaml.safe_dump({"model": model, "data": DATA, "trainer": trainer}))
    main(["fit", "--config", str(path)])
    return folder / "run"


def report():
    return json.loads((FOLDER / "report.json").read_text())


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["convert", *words])
    assert ended.value.code == 2
    text = capsys.readouterr().err.rpartition("fulgurite: ")[-1]
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("method", "settings", "latency"),
    [
        ("qcfs", {}, [1, 2, 4, 8]),
        ("srp", {"tau": 3}, [4, 5, 7, 11]),
        ("cos", {"rho": 2}, [3, 4, 6, 10]),
        ("parallel", {}, [1, 2, 4, 8]),
    ],
)
def test_a_trained_run_becomes_a_folder_of_the_zoo(method, settings, latency, trained, config, capsys):
    words = ["--source.model", str(trained), *PLAIN, "--method", method]
    words += [f"--method_args.{key}={value}" for key, value in settings.items()]
    main(["convert", "--config", config, *words, "--calibration.samples", "64"])
    out = capsys.readouterr().out
    assert "self-test" in out
    assert "latency" in out
    written = report()
    found = written["comparison"]
    assert found["ann_accuracy"] > 0.9, "the source has learnt, else this means nothing"
    assert [p["latency"] for p in found["points"]] == latency
    assert [p["time_steps"] for p in found["points"]] == [1, 2, 4, 8]
    assert found["points"][-1]["accuracy"] > 0.8
    if method == "parallel":
        assert found["points"][2]["agreement"] == 1.0, "lossless at T = L"
    assert written["recipe"]["source"]["architecture"] == "qcfs_resnet18"
    assert written["recipe"]["source"]["model_args"]["levels"] == 4
    for name in ("accuracy_over_time", "firing_rates"):
        assert (FOLDER / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    card = (FOLDER / "README.md").read_text()
    assert f"{found['points'][2]['accuracy']:.2%}" in card
    assert "fulgurite convert --config" in card
    model = zoo.load(f"local-dir:{FOLDER}")
    assert (model.method.name, model.time_steps) == (method, 4)
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert model(images).shape == (5, 4)
    assert yaml.safe_load((FOLDER / "training.yaml").read_text())["method"] == method


def test_the_written_settings_convert_again(config):
    main(["convert", "--config", config, "--output", "first"])
    main(["convert", "--config", "first/training.yaml", "--output", "second"])
    first, second = (
        json.loads(Path(p, "report.json").read_text())["comparison"] for p in ("first", "second")
    )
    assert first == second
    assert Path("first/model.safetensors").read_bytes() == Path("second/model.safetensors").read_bytes()


def test_relu_sources_are_calibrated(config, capsys):
    words = ["--config", config, "--source.model_args.activation", "relu"]
    assert "calibration: {samples: 100}" in refused(capsys, *words)
    main(["convert", *words, "--calibration.samples", "10", "--calibration.batch_size", "4"])
    assert report()["conversion"]["images"] == 10
    assert report()["calibration"] == {"samples": 10, "batch_size": 4}


def test_a_method_without_steps_is_converted_for_every_t(config):
    words = ["--method", "parallel", "--source.model_args.activation", "relu", "--calibration.samples", "32"]
    main(["convert", "--config", config, *words, "--evaluate_at", "[2, 32]"])
    points = {p["time_steps"]: p for p in report()["comparison"]["points"]}
    assert list(points) == [2, 4, 32], "T of the saved network is measured, too"
    assert points[32]["logit_difference"] < points[2]["logit_difference"]


def test_t_is_measured_at_powers_of_two_if_nothing_is_said(config):
    main(["convert", "--config", config, "--evaluate_at", "null", "--time_steps", "6"])
    assert [p["time_steps"] for p in report()["comparison"]["points"]] == [1, 2, 4, 6]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--method", "qcsf"], "did you mean 'qcfs'"),
        (["--method", "srp", "--method_args.tua", "3"], "did you mean 'tau'"),
        (["--method", "srp", "--method_args.tau", "-1"], "tau must be"),
        (["--source.model", "qcfs_resnet81"], "did you mean 'qcfs_resnet18'"),
        (["--source.pretrained", "null"], "qcfs_resnet18 has no weights"),
        (["--source.weights", "none.ckpt", "--source.pretrained", "null"], "none.ckpt"),
        (["--source.wieghts", "x"], "did you mean '--source.weights'"),
        (["--source.model", "runs/none"], "no such file or folder: runs/none"),
        (["--source.model_args.num_classes", "7"], "the data have num_classes = 4"),
        (["--source.model", "spiking_cnn_nano", *PLAIN], "the data have num_classes = 4"),
        (["--source.model", "timm/convnext_atto", *IMAGES], "has no activation"),
        (["--calibration.sample", "5"], "did you mean 'samples'"),
        (["--calibration.samples", "-5"], "samples must be"),
        (["--time_steps", "0"], "time_steps must be"),
        (["--evaluate_at", "[0, 2]"], "evaluate_at must name"),
        (["--evaluate", "[2]"], "did you mean '--evaluate_at'"),
        (["--data.init_args.image_sise", "3"], "did you mean 'image_size'"),
        (["--data", "SynteticDataModule"], "did you mean 'SyntheticDataModule'"),
        (["--data", "ControlDataModule", "--data.env", "Pendulum-v1"], "ControlDataModule has no classes"),
    ],
)
def test_bad_input_is_one_short_message(words, expected, config, capsys):
    assert expected in refused(capsys, "--config", config, *words)
    assert not FOLDER.exists()


def test_files_that_are_missing(config, capsys):
    assert "did you mean conversion/tiny.yaml" in refused(capsys, "--config", "conversion/tiiny.yaml")
    assert "source.model" in refused(capsys, "--data", "SyntheticDataModule")


def test_a_converted_network_is_no_source(config, capsys):
    main(["convert", "--config", config])
    words = ["--config", config, "--source.model", f"local-dir:{FOLDER}", *PLAIN]
    assert "is converted already" in refused(capsys, *words)


def test_the_task_fits_without_an_epoch_and_from_its_checkpoint(trained, config, capsys):
    source = {"model": str(trained)}
    task = {"class_path": "ConversionTask", "init_args": {"source": source, "time_steps": 2, "lr": 0.01}}
    trainer = {"max_epochs": 0, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
    Path("finetune").mkdir()
    path = Path("finetune/tiny.yaml")
    path.write_text(yaml.safe_dump({"model": task, "data": DATA, "trainer": trainer}))
    words, folder = ["--config", str(path)], Path("runs/finetune-tiny")
    main(["fit", *words])
    main(["test", *words, "--ckpt_path", "last"])
    assert "qcfs_resnet18 by qcfs" in capsys.readouterr().out
    converted = json.loads((folder / "report.json").read_text())
    assert converted["metrics"]["test/acc1_t1"] <= converted["metrics"]["test/acc1"]
    main(["fit", *words, "--trainer.max_epochs", "1", "--test_after_fit", "true"])
    tuned = json.loads((folder / "report.json").read_text())
    assert tuned["training"]["method"].startswith("conversion of a trained ANN, fine-tuned")
    assert tuned["before"] == converted["metrics"], "what the run starts from is what conversion alone gives"
    assert "before training: accuracy at every T" in (folder / "report.md").read_text()
    assert "before" not in converted
    model = zoo.load(str(folder / "checkpoints" / "best.ckpt"))
    assert (model.architecture, model.time_steps) == ("converted", 2)
    main(["publish", str(folder), "--repo-id", "owner/name", "--dry-run"])
    card = (folder / "hub" / "README.md").read_text()
    assert "converted from qcfs_resnet18" in card
    changed = ["--model.init_args.time_steps", "0"]
    with pytest.raises(SystemExit):
        main(["test", *words, *changed])
    assert "time_steps must be" in capsys.readouterr().err
