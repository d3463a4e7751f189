"""The commands, as a user types them."""

import csv
import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import zoo
from cli.main import main

ROOT = Path(__file__).resolve().parents[3]
CONFIG = {
    "seed_everything": 1,
    "model": {
        "class_path": "ClassificationTask",
        "init_args": {
            "model": "spiking_cnn_nano",
            "model_args": {"time_steps": 2, "channels": [4, 8], "pool_size": 1},
            "lr": 0.01,
        },
    },
    "data": {
        "class_path": "SyntheticDataModule",
        "init_args": {
            "image_size": 16,
            "in_chans": 1,
            "num_classes": 4,
            "batch_size": 8,
            "train_samples": 32,
        },
    },
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False},
}
FOLDER = Path("runs/method-run")


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("method/run.yaml")
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(CONFIG))
    return str(path)


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2
    # Lightning's log handlers keep the stderr of the test before, and complain about it; that is not ours
    text = capsys.readouterr().err.rpartition("fulgurite: ")[-1]
    assert "Traceback" not in text
    return text


def test_fit_then_test_then_predict(config, tmp_path, capsys):
    main(["fit", "--config", config, "--test_after_fit", "true"])
    for name in (
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "metrics.csv",
        "config.yaml",
        "report.json",
    ):
        assert (FOLDER / name).is_file(), name
    main(["validate", "--config", config, "--ckpt_path", "best"])
    main(["test", "--config", config, "--ckpt_path", "last"])
    assert "test accuracy" in capsys.readouterr().out
    images = tmp_path / "images" / "deep"
    images.mkdir(parents=True)
    for i in range(3):
        Image.new("L", (20 + i, 16), 80 * i).save(images / f"{i}.png")
    (images / "2.5.png").write_text("no image")  # costs its own prediction only
    options = ["--data.init_args.predict_dir", "images", "--output", "out.csv", "--top_k", "2"]
    with (
        pytest.warns(UserWarning, match="cannot read the image images/deep/2.5.png"),
        pytest.raises(SystemExit) as ended,
    ):
        main(["predict", "--config", config, "--ckpt_path", "best", *options])
    assert ended.value.code == 2
    assert "1 of 4 images could not be read; out.csv has the others" in capsys.readouterr().err
    with open("out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["path"]).name for row in rows] == ["0.png", "1.png", "2.png"]
    assert all(float(row["probability"]) >= float(row["probability_2"]) for row in rows)
    assert {row["label"] for row in rows} <= {f"class {k}" for k in range(4)}


def test_explains_a_prediction_by_its_tokens(config, tmp_path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in ("a/1.png", "b/1.png", "b/2.png"):
        Image.effect_noise((28, 28), 60).save(tmp_path / name)
    words = ["--data.init_args.predict_dir", str(tmp_path), "--output", "out.csv", "--explain", "tokens"]
    assert "random weights predict nothing" in refused(capsys, "predict", "--config", config, *words)
    main(["fit", "--config", config])
    words += ["--ckpt_path", "last"]
    gone = [word.replace(str(tmp_path), "nothing.png") for word in words]
    assert "nothing.png" in refused(capsys, "predict", "--config", config, *gone)
    assert "no blocks that could run on part of their tokens" in refused(
        capsys, "predict", "--config", config, *words
    )
    own = zoo.create("spikformer_nano", time_steps=2, num_classes=10)
    weights = zoo.save(own, tmp_path / "own") / "model.safetensors"
    words[-2:] = ["--model.init_args.model", "spikformer_nano", "--data.init_args.image_size", "28"]
    words += ["--model.init_args.model_args", f"{{time_steps: 2, weights: {weights}}}"]
    main(["predict", "--config", config, *words])
    assert sorted(p.name for p in Path("out_tokens").iterdir()) == ["1-2.png", "1.png", "2.png"]
    with Image.open("out_tokens/1.png") as figure:
        assert figure.width > figure.height > 100
    scorer = "{method: tome, keep: 0.9}"
    text = refused(capsys, "predict", "--config", config, *words, "--model.init_args.token_reduction", scorer)
    assert "pairs tokens and has no scores" in text


def test_the_command_line_wins_over_the_checkpoint(config):
    main(["fit", "--config", config])
    stored = torch.load(FOLDER / "checkpoints" / "last.ckpt", weights_only=True)
    assert stored["hyper_parameters"]["lr"] == 0.01
    words = ["fit", "--config", config, "--ckpt_path", "last", "--trainer.max_epochs", "2"]
    main([*words, "--model.init_args.lr", "0.5", "--model.init_args.label_smoothing", "0.2"])
    again = torch.load(FOLDER / "checkpoints" / "last.ckpt", weights_only=True)
    assert again["hyper_parameters"]["label_smoothing"] == 0.2
    assert again["hyper_parameters"]["lr"] == 0.5
    assert again["epoch"] == 1


def test_a_second_run_keeps_the_first(config):
    main(["fit", "--config", config])
    before = (FOLDER / "checkpoints" / "last.ckpt").read_bytes()
    main(["fit", "--config", config, "--model.init_args.lr", "0.02"])
    kept = [p for p in Path("runs").iterdir() if p != FOLDER]
    assert [(p / "checkpoints" / "last.ckpt").read_bytes() == before for p in kept] == [True]
    main(["fit", "--config", config, "--seed_everything", "2"])
    assert FOLDER.with_name(f"{FOLDER.name}-seed2").is_dir()


def test_facts_of_the_data_reach_the_model(config):
    main(["fit", "--config", config, "--data.init_args.num_classes", "7", "--data.init_args.in_chans", "3"])
    hyper = torch.load(FOLDER / "checkpoints" / "last.ckpt", weights_only=True)["hyper_parameters"]
    assert (hyper["num_classes"], hyper["in_chans"]) == (7, 3)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--model.init_args.model", "spiking_cnn_nanno"], "did you mean 'spiking_cnn_nano'"),
        (["--model.init_args.lrr", "3"], "did you mean 'lr'"),
        (["--model.init_args.lr", "abc"], "abc"),
        (["--model.init_args.lr", "-1"], "lr must be"),
        (["--trainer.max_epoch", "3"], "did you mean '--trainer.max_epochs'"),
        (["--data", "MNIST6kDataModule"], "did you mean 'MNIST5kDataModule'"),
        (["--model", "ClassificationTsk"], "did you mean 'ClassificationTask'"),
        (["--ckpt_path", "last"], "no checkpoint in"),
        (["--ckpt_path", "missing.ckpt"], "missing.ckpt"),
        (["--model.init_args.num_classes", "5"], "num_classes is 5"),
        (["--model.init_args.model_args.time_steps", "0"], "time_steps"),
    ],
)
def test_bad_input_is_one_short_message(words, expected, config, capsys):
    assert expected in refused(capsys, "fit", "--config", config, *words)


def test_unknown_commands_and_files(config, capsys):
    assert "did you mean 'fit'" in refused(capsys, "fitt")
    assert "did you mean method/run.yaml" in refused(capsys, "fit", "--config", "method/rum.yaml")
    assert "COMMAND" in refused(capsys)


class Trap:
    """What a pickled checkpoint could do."""

    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize("content", ["truncated", "code", "foreign", "text"])
def test_broken_checkpoints_are_refused_and_kept(content, config, capsys):
    main(["fit", "--config", config])
    path = FOLDER / "checkpoints" / "last.ckpt"
    whole = path.read_bytes()
    if content == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif content == "code":
        torch.save({"state_dict": Trap()}, path)
    elif content == "foreign":
        torch.save({"weights": {"a": torch.zeros(2)}}, path)
    else:
        path.write_text("not a checkpoint")
    broken = path.read_bytes()
    text = refused(capsys, "test", "--config", config, "--ckpt_path", str(path))
    assert "last.ckpt" in text
    assert not Path("executed").exists()
    assert path.read_bytes() == broken


def test_a_full_disk_says_so_and_spoils_nothing(config, capsys, monkeypatch):
    main(["fit", "--config", config])
    path = FOLDER / "checkpoints" / "last.ckpt"
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cli.run.storage.torch.save", full)
    words = ["fit", "--config", config, "--ckpt_path", "last", "--trainer.max_epochs", "2"]
    text = refused(capsys, *words)
    assert "the disk is full" in text
    assert "--ckpt_path last" in text
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*.part*"))


def test_models_lists_the_zoo(capsys):
    main(["models", "spikingresformer-l"])
    out = capsys.readouterr().out
    assert "60,375,680" in out
    assert "spikingresformer_ti" not in out


def test_help_imports_nothing_heavy(tmp_path):
    code = (
        "import sys; from cli.main import main; main(['--help'])\n"
        "assert not {'torch', 'lightning', 'timm'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout
    module = subprocess.run([sys.executable, "-m", "cli", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert module.stdout == done.stdout
