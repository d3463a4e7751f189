"""A signal ends a command with status 128 + number, a training with a checkpoint that goes on bit-equal."""

import json
import os
import signal

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from cli import signals
from cli.main import main

FIT = """\
model:
  class_path: ClassificationTask
  init_args: {model: spiking_cnn_nano, model_args: {time_steps: 2, channels: [4, 8], pool_size: 1}}
data:
  class_path: SyntheticDataModule
  init_args: {image_size: 16, in_chans: 1, num_classes: 4, batch_size: 8, train_samples: 48, val_samples: 16}
trainer:
  max_epochs: 2
  accelerator: cpu
  enable_progress_bar: false
  accumulate_grad_batches: 2
  val_check_interval: 3
  callbacks:
    - class_path: lightning.pytorch.callbacks.EMAWeightAveraging  # swaps weights in validations
      init_args: {decay: 0.9}
"""


class Kick(Callback):
    """Sends this process a signal at the n-th batch of a stage."""

    def __init__(self, stage: str, at: int, number: int) -> None:
        self.stage, self.at, self.number = stage, at, number

    def _count(self, stage: str) -> None:
        if stage == self.stage:
            self.at -= 1
            if self.at == 0:
                os.kill(os.getpid(), self.number)

    def on_train_batch_start(self, trainer, *_):
        self._count("train")

    def on_validation_batch_start(self, trainer, *_):
        self._count("sanity" if trainer.sanity_checking else "validation")

    def on_test_batch_start(self, trainer, *_):
        self._count("test")


def command(name, folder, *words, monkeypatch):
    (folder / "method").mkdir(parents=True, exist_ok=True)
    (folder / "method" / "run.yaml").write_text(FIT)
    monkeypatch.chdir(folder)
    main([name, "--config", "method/run.yaml", *words])


def kick(stage, at, number):
    words = {"stage": stage, "at": at, "number": int(number)}
    options = [w for k, v in words.items() for w in (f"--trainer.callbacks.{k}", str(v))]
    return ["--trainer.callbacks+=tests.cli.test_signals.Kick", *options]


def checkpoint(folder, name="last"):
    return torch.load(folder / f"runs/method-run/checkpoints/{name}.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        command("fit", folder, monkeypatch=monkeypatch)
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("stage", "at", "number"),
    [
        ("train", 5, signal.SIGTERM),  # between two optimiser steps
        ("train", 3, signal.SIGHUP),  # a validation is next
        ("validation", 2, signal.SIGINT),
        pytest.param("validation", 7, signal.SIGTERM, marks=pytest.mark.slow),  # at the end of an epoch
        pytest.param("train", 12, signal.SIGTERM, marks=pytest.mark.slow),  # the last batch
    ],
)
def test_a_training_that_a_signal_ends_goes_on_bit_equal(whole, tmp_path, monkeypatch, stage, at, number):
    with pytest.raises(SystemExit) as caught:
        command("fit", tmp_path, *kick(stage, at, number), monkeypatch=monkeypatch)
    assert caught.value.code == 128 + number
    command("fit", tmp_path, "--ckpt_path", "last", monkeypatch=monkeypatch)
    for name in ("last", "best"):
        expected, got = checkpoint(whole, name), checkpoint(tmp_path, name)
        assert got["global_step"] == expected["global_step"]
        for part in ("state_dict", "current_model_state"):
            for key, value in expected[part].items():
                assert torch.equal(value, got[part][key]), key
    rows = [
        {line for line in (folder / "runs/method-run/metrics.csv").read_text().splitlines() if ",,," in line}
        for folder in (whole, tmp_path)
    ]
    assert rows[0] == rows[1], "every validation is on record, whole"


@pytest.mark.filterwarnings("ignore")
def test_the_average_is_what_a_training_tests(tmp_path, monkeypatch, capsys):
    command("fit", tmp_path, "--test_after_fit", "true", monkeypatch=monkeypatch)
    measured = json.loads((tmp_path / "runs/method-run/report.json").read_text())["metrics"]
    best, found = checkpoint(tmp_path, "best"), {}
    for part in ("state_dict", "current_model_state"):
        path = tmp_path / f"{part}.ckpt"
        torch.save({**best, "state_dict": best[part]}, path)
        command("test", tmp_path, "--ckpt_path", str(path), monkeypatch=monkeypatch)
        found[part] = json.loads((tmp_path / "runs/method-run/test/report.json").read_text())["metrics"]
    assert found["state_dict"]["test/loss"] == measured["test/loss"]
    assert found["current_model_state"]["test/loss"] != measured["test/loss"]
    assert "WeightAveraging" not in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "stage"), [("fit", "sanity"), ("test", "test"), ("validate", "validation")])
def test_other_stages_end_at_once(tmp_path, monkeypatch, capsys, name, stage):
    with pytest.raises(SystemExit) as caught:
        command(name, tmp_path, *kick(stage, 1, signal.SIGTERM), monkeypatch=monkeypatch)
    assert caught.value.code == 143
    assert "stopped by SIGTERM" in capsys.readouterr().err
    assert not (tmp_path / "runs/method-run/checkpoints").exists()


def test_what_the_caller_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.handled():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_interrupt_does_not_wait():
    with signals.handled():
        signals.hold()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.asked() == signal.SIGINT
        with pytest.raises(signals.Stopped) as caught:
            os.kill(os.getpid(), signal.SIGINT)
    assert caught.value.code == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
