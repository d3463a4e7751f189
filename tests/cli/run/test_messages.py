"""A run tells what its user wants to know, on the screen and in its log file, and nothing else."""

import logging
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from cli.main import main
from cli.run import help, messages
from cli.run.cli import SpikingCLI
from cli.run.loggers import named_logger
from cli.run.messages import is_asked_for, quiet
from cli.run.options import RunOptions

ROOT = Path(__file__).resolve().parents[3]
CONFIG = {
    "model": {
        "class_path": "ClassificationTask",
        "init_args": {
            "model": "spiking_cnn_nano",
            "model_args": {"time_steps": 2, "channels": [4, 8], "pool_size": 1},
            "lr": 0.0,
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
    "trainer": {
        "max_epochs": 9,
        "accelerator": "cpu",
        "devices": 1,
        "callbacks": [
            {
                "class_path": "EarlyStopping",
                "init_args": {"monitor": "val/acc1", "mode": "max", "patience": 1},
            }
        ],
    },
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a training in a process of its own writes, and its folder."""
    place = tmp_path_factory.mktemp("run")
    (place / "m").mkdir()
    (place / "m/a.yaml").write_text(yaml.safe_dump(CONFIG))
    words = ["fit", "--config", "m/a.yaml", "--logger", "tensorboard", "--test_after_fit", "true"]
    done = subprocess.run(
        [sys.executable, "-m", "cli", *words],
        cwd=place,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr, place / "runs/m-a"


def test_nothing_unasked_for_is_said(run):
    text, _ = run
    for noise in ("GPU", "TPU", "Tip", "sync_dist", "Warning", "Seed set", "Restoring", "`Trainer"):
        assert noise not in text, text


def test_early_stopping_says_why(run):
    text, _ = run
    expected = "stopped early after epoch 2: Monitored metric val/acc1 did not improve in the last 1 records."
    assert expected in text


def test_epochs_count_from_one(run):
    text, folder = run
    for line in ("Epoch 1/9: train/loss", "Epoch 2/9: train/loss"):
        assert line in text
        assert line in (folder / "log.txt").read_text()
    assert "Epoch 0" not in text
    assert "Epoch 2/9  " in text  # the bar's


def test_an_epoch_that_goes_on_with_its_validation_is_timed_from_there(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(messages, "rank_zero_info", said.append)
    log = messages.RunLog(tmp_path, "fulgurite fit", shown=True)
    trainer = SimpleNamespace(
        num_training_batches=4,
        log_every_n_steps=1,
        is_global_zero=True,
        callback_metrics={"val/acc1": 0.5},
        max_epochs=3,
        current_epoch=1,
    )
    log.on_train_start(trainer, None)
    log.on_train_epoch_end(trainer, None)
    assert said == ["Epoch 2/3: val/acc1 0.5 (0 s)"]


def test_the_log_begins_with_the_command_and_ends_with_the_test(run):
    lines = (run[1] / "log.txt").read_text().splitlines()
    assert lines[0].endswith(" fulgurite fit --config m/a.yaml --logger tensorboard --test_after_fit true")
    assert " test/loss " in lines[-1]
    assert "test/acc1_t2" in lines[-1]


def test_tensorboard_has_the_figures(run):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = events.EventAccumulator(str(run[1] / "tensorboard")).Reload()
    assert "curves" in found.Tags()["images"]
    assert "val/acc1" in found.Tags()["scalars"]
    assert (run[1] / "metrics.csv").is_file()  # all the same


def test_curves_are_drawn_over_epochs_in_both_formats(run):
    text = (run[1] / "figures/curves.svg").read_text()
    assert "<!-- epoch -->" in text
    assert (run[1] / "figures/curves.png").is_file()


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ("GPU available: False, used: False", False),
        ("💡 Tip: For seamless cloud uploads", False),
        ("`Trainer.fit` stopped: `max_epochs=2` reached.", False),
        ("Restoring states from the checkpoint path at x", False),
        ("Time limit reached. Elapsed time is 1. Signaling Trainer to stop.", True),
        ("Detected KeyboardInterrupt, attempting graceful shutdown ...", True),
        ("images are prepared as x was trained with", True),
    ],
)
def test_what_is_left_out(message, asked):
    assert is_asked_for(logging.makeLogRecord({"msg": message})) is asked


def test_silence_ends_with_the_command():
    def now():
        handlers = logging.getLogger("lightning.pytorch").handlers
        return [list(handler.filters) for handler in handlers], list(warnings.filters)

    before = now()
    with quiet():
        assert now() != before
    assert now() == before


@pytest.mark.parametrize("name", ["wandb", "mlflow", "tensorboard"])
def test_a_logger_that_is_not_installed_names_its_extra(name, tmp_path, monkeypatch):
    monkeypatch.setattr("cli.run.loggers.find_spec", lambda package: None)
    with pytest.raises(RuntimeError, match=rf"pip install 'fulgurite\[{name}\]'"):
        named_logger(name, tmp_path)


@pytest.mark.parametrize("command", help.EXAMPLES)
def test_help_is_one_screen_with_every_option_of_ours(command, capsys):
    main([command, "--help"])
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 55
    assert max(map(len, text.splitlines())) <= help.WIDTH
    if command == "fit":
        assert "--logger {csv,tensorboard,wandb,mlflow}" in text
        assert "--model.loss {ce,tet}" in text
        shown = [name for name in vars(RunOptions()) if f"--{name} " in text]
        assert set(vars(RunOptions())) - set(shown) == {*help.ONLY_PREDICT, "tensorboard"}


def test_help_all_is_lightning_s(capsys):
    with pytest.raises(SystemExit) as ended:
        SpikingCLI(help.without_all(["fit", "--help", "all"]))
    assert ended.value.code == 0
    assert "--trainer.accumulate_grad_batches" in capsys.readouterr().out
