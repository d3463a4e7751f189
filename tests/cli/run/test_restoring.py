"""A checkpoint needs nothing of what its run began with; all tasks that begin with something are asked."""

import inspect
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import lightning_modules
import zoo
from cli.main import main
from lightning_modules import BaseTask, ImageTokenizerTask, LatentDiffusionTask

NET = {"layers": [1, 1], "planes": [4, 8], "levels": 4, "v_threshold": 2.0}
DATA = {
    "class_path": "SyntheticDataModule",
    "init_args": {
        "image_size": 16, "in_chans": 1, "num_classes": 4, "batch_size": 8, "train_samples": 8,
        "val_samples": 8, "test_samples": 8,
    },
}  # fmt: skip
CONVERSION = {
    "class_path": "ConversionTask",
    "init_args": {"source": {"model": "local-dir:source"}, "method": "qcfs", "time_steps": 2},
}


def test_a_converted_network_is_tested_without_its_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    zoo.save(zoo.create("qcfs_resnet18", num_classes=4, in_chans=1, **NET), "source")
    trainer = {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
    Path("run.yaml").write_text(yaml.safe_dump({"model": CONVERSION, "data": DATA, "trainer": trainer}))
    main(["fit", "--config", "run.yaml", "--trainer.default_root_dir", "run", "--test_after_fit", "true"])
    before = Path("run/report.json").read_text()
    shutil.rmtree("source")
    main(["test", "--config", "run/config.yaml", "--ckpt_path", "best"])
    assert '"test/acc1"' in before
    assert "local-dir:source" in Path("run/config.yaml").read_text()


TASKS = [
    kind
    for name in lightning_modules.__all__
    if inspect.isclass(kind := getattr(lightning_modules, name)) and issubclass(kind, BaseTask)
]


@pytest.mark.parametrize("kind", TASKS, ids=lambda kind: kind.__name__)
def test_a_restored_task_begins_with_nothing(kind):
    known = {name for cls in kind.__mro__[:-1] for name in inspect.signature(cls).parameters}
    assert set(kind.begins_with) <= known, "what a run begins with is an argument"
    given = dict.fromkeys(known, "runs/gone")
    given["model_args"] = {"weights": "runs/gone", "hybrid": {"source": "runs/gone"}, "pretrained": True}
    kept = kind.restored_arguments(given, dict.fromkeys(kind.begins_with, "recorded"))
    assert kept["model_args"] == {}
    assert {name for name, value in kept.items() if value == "recorded"} == set(kind.begins_with)
    sizes = {"layers": 2, "width": 8}  # which the files told, whatever else is configured
    assert kind.restored_arguments(given, {"model_args": sizes})["model_args"] == sizes
    asked = {"model_args": {"layers": 3}}
    assert kind.restored_arguments(asked, {"model_args": sizes}) == asked
    assert kind.restored_arguments({"lr": 0.1}, {"lr": 0.2, "source": "x"}) == {"lr": 0.1}


def test_a_restored_diffusion_model_reads_no_autoencoder():
    asked = {"autoencoder": "vae", "unet": "unet", "text_encoder": "clip", "rescale": True}
    kept = LatentDiffusionTask.restored_arguments(asked, {})
    assert kept == {"autoencoder": None, "unet": None, "text_encoder": None, "rescale": True}


def test_a_checkpoint_of_a_run_restores_its_task_whatever_the_data_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = [f"--trainer.limit_{stage}_batches=1" for stage in ("train", "val")]
    small = ["--model.model_args", "{channels: 8, multipliers: [1, 1, 1], groups: 4, codes: 8}"]
    run = ["--trainer.max_epochs", "1", "--trainer.default_root_dir", "run", "--test_after_fit", "false"]
    main(["fit", "--config", "emu3_5/ibq_mnist5k", *short, *small, *run])
    again = ImageTokenizerTask.load_from_checkpoint("run/checkpoints/last.ckpt", weights_only=True)
    assert again.model.codes == 8
    assert (
        again.entropy_weight
        == yaml.safe_load(Path("run/config.yaml").read_text())["model"]["init_args"]["entropy_weight"]
    )
