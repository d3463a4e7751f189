"""The run of UP-Diff: trained for a few steps, tested, gone on with, and predicted from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cli.main import main
from zoo.registry import get_entry

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("diffusers")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The configuration with few samples and steps, beside a folder of two pairs."""
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((ROOT / "configs" / "up_diff" / "tiny.yaml").read_text(encoding="utf-8"))
    config["data"]["init_args"] |= {"train_samples": 32, "test_samples": 4, "batch_size": 4}
    config["model"]["init_args"] |= {"sampling_steps": 2}
    config["checkpoint_every_n_steps"] = 2
    averaging = "lightning.pytorch.callbacks.EMAWeightAveraging"
    config["trainer"]["callbacks"] = [{"class_path": averaging, "init_args": {"decay": 0.9}}]
    config["trainer"] |= {"max_steps": 4, "val_check_interval": 2, "log_every_n_steps": 1}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))
    draw = np.random.default_rng(0)
    for name in ("north", "south"):
        for part, channels in (("A", (3,)), ("label", ())):
            pixels = draw.integers(0, 2, (16, 16, *channels), dtype=np.uint8) * 255
            (tmp_path / "pairs" / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "pairs" / part / f"{name}.png")
    return tmp_path


@pytest.fixture
def small_pairs(tmp_path):
    """Three sets of four pairs of 32 x 32 pixels."""
    draw = np.random.default_rng(0)
    for place in [(role, part) for role in ("train", "val", "test") for part in ("A", "B", "label")]:
        for i in range(4):
            shape = (32, 32) if place[1] == "label" else (32, 32, 3)
            path = tmp_path.joinpath("sets", *place, f"{i}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 2, shape, dtype=np.uint8) * 255).save(path)
    return tmp_path / "sets"


def test_trains_tests_goes_on_and_predicts(run, caplog):
    main(["fit", "--config", "small.yaml"])
    (report,) = (run / "runs").glob("*/report.json")
    metrics = json.loads(report.read_text())["metrics"]
    assert {"test/psnr", "test/ssim", "test/inside_acc", "test/building_iou", "test/pixel_acc"} <= set(
        metrics
    )
    assert metrics["test/copy_psnr"] > metrics["test/psnr"]  # four steps teach nothing
    table = (report.parent / "metrics.csv").read_text()
    assert "train/loss" in table
    assert "val/loss" in table
    assert (report.parent / "figures" / "samples.png").is_file()
    assert "FID was not measured: FID needs" in (told := caplog.text)
    assert "LPIPS was not measured: LPIPS needs images of at least 64 pixels a side, these have 16" in told
    again = ["--trainer.max_steps", "6", "--ckpt_path", "last", "--test_after_fit", "false"]
    main(["fit", "--config", "small.yaml", *again])
    checkpoint = torch.load(report.parent / "checkpoints" / "last.ckpt", weights_only=True)
    average, last = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert average.keys() == last.keys()
    assert any(not torch.equal(average[k], last[k]) for k in last)
    config = str(report.parent / "config.yaml")
    words = [
        "--data",
        "ChangePairsDataModule",
        "--data.root",
        "pairs",
        "--data.image_size",
        "16",
        "--data.num_workers",
        "0",
    ]
    main(["predict", "--config", config, "--ckpt_path", "last", "--output", "own", *words])
    assert sorted(p.name for p in (run / "own").glob("*.png")) == ["north.png", "south.png"]
    with Image.open(run / "own" / "sheets" / "north.png") as sheet:
        assert sheet.size == (4 * 64 + 3 * 4, 64)


def test_an_autoencoder_is_trained_and_taken(run, small_pairs):
    """The autoencoder's own training, and the full configuration in small with what it leaves behind."""
    folder = ROOT / "configs" / "up_diff"
    config = yaml.safe_load((folder / "autoencoder.yaml").read_text(encoding="utf-8"))
    config["model"]["init_args"] |= {"channels": [8, 8, 8, 8], "perceptual": "none"}
    config["data"]["init_args"] |= {
        "root": str(small_pairs),
        "image_size": 32,
        "batch_size": 2,
        "num_workers": 0,
    }
    config["trainer"] |= {"accelerator": "cpu", "max_steps": 2}
    (run / "autoencoder.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", "autoencoder.yaml"])
    (trained,) = (run / "runs").glob("*/autoencoder")
    levir = yaml.safe_load((folder / "levir.yaml").read_text(encoding="utf-8"))
    task = levir["model"]["init_args"]
    small = {**get_entry("up_diff_levir").small, "caption": "learned"}
    small |= {k: list(v) for k, v in small.items() if isinstance(v, tuple)}
    task |= {
        "model_args": small,
        "autoencoder": str(trained),
        "unet": None,
        "text_encoder": None,
        "rescale": True,
    }
    levir["model"]["init_args"] = {**task, "sampling_steps": 2}
    levir["data"]["init_args"] |= config["data"]["init_args"]
    levir["trainer"] |= config["trainer"]
    (run / "levir.yaml").write_text(yaml.safe_dump(levir))
    main(["fit", "--config", "levir.yaml"])
    (report,) = (run / "runs").glob("*levir*/report.json")
    assert "test/psnr" in json.loads(report.read_text())["metrics"]
    assert (report.parent / "figures" / "samples.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.init_args.dropout", "2"], "dropout must lie between 0 and 1, got 2.0"),
        (["--model.init_args.sampling_steps", "900"], "steps must be at most 500, got 900"),
        (["--model.init_args.autoencoder", "nowhere"], "works on images, without an autoencoder"),
        (["--model.init_args.unet", "nowhere"], "nowhere holds no diffusion_pytorch_model.safetensors"),
        (["--data.init_args.image_size", "32"], "up_diff_tiny is for 16 pixels, data have 32"),
    ],
)
def test_bad_settings_are_told_in_a_line(run, capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", "small.yaml", *words])
    assert ended.value.code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert message in " ".join(error.split())
