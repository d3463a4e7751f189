"""A run that is killed in the middle of an epoch goes on to the weights of an undisturbed one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DistributedSampler

from cli.run.epochs import mend_epochs

ROOT = Path(__file__).resolve().parents[3]
CONFIG = """\
# A run of some seconds.
seed_everything: 3
checkpoint_every_n_steps: 7
model:
  class_path: ClassificationTask
  init_args:
    model: spiking_cnn_nano
    model_args: {time_steps: 2, channels: [4, 8], pool_size: 1, drop_rate: 0.3}
    mixup: 0.4
    lr: 0.01
data:
  class_path: SyntheticDataModule
  init_args: {image_size: 16, in_chans: 1, num_classes: 4, batch_size: 8, train_samples: 320, flip: 0.5}
trainer:
  max_epochs: 4
  accelerator: cpu
  enable_progress_bar: false
"""


def start(folder: Path, *words: str) -> subprocess.Popen:
    path = folder / "method" / "run.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CONFIG)
    command = [sys.executable, "-m", "cli", "fit", "--config", "method/run.yaml", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen) -> None:
    error = process.communicate(timeout=300)[1]
    assert process.returncode == 0, error


def last(folder: Path) -> dict:
    path = folder / "runs" / "method-run" / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)


def kill_in_epoch(folder: Path, epoch: int) -> None:
    process = start(folder)
    path = folder / "runs" / "method-run" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists():
            found = torch.load(path, weights_only=True)
            if found["epoch"] == epoch and found["global_step"] % 40:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                return
        time.sleep(0.01)
    pytest.fail(f"the run ended before it could be killed: {process.communicate()[1]}")


def test_kill_and_go_on(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    undisturbed = start(whole)
    kill_in_epoch(cut, epoch=1)
    finish(undisturbed)
    middle = last(cut)
    assert 0 < middle["global_step"] < last(whole)["global_step"]
    finish(start(cut, "--ckpt_path", "last"))
    expected, got = last(whole), last(cut)
    assert got["global_step"] == expected["global_step"] == 160
    for name, value in expected["state_dict"].items():
        assert torch.equal(value, got["state_dict"][name]), name
    assert not torch.equal(
        middle["state_dict"]["model.classifier.weight"], got["state_dict"]["model.classifier.weight"]
    )


class Samples(pl.Callback):
    """Keeps what the network saw, and the checkpoint of the end of every epoch."""

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(batch.tolist())

    def on_train_epoch_end(self, trainer, pl_module):
        if self.folder is not None:
            trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}.ckpt")


class Line(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return (self.w * batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("limit", [{"max_steps": 12}, {"max_epochs": 3}])
def test_from_the_very_end_of_an_epoch(tmp_path, limit):
    def fit(folder, ckpt_path=None):
        loader = torch.utils.data.DataLoader(
            torch.arange(16.0), 4, sampler=DistributedSampler(range(16), 1, 0)
        )
        samples = Samples(folder)
        quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
        trainer = pl.Trainer(
            accelerator="cpu", default_root_dir=tmp_path, callbacks=[samples], use_distributed_sampler=False,
            enable_checkpointing=False, **quiet, **limit,
        )  # fmt: skip
        mend_epochs(trainer)
        trainer.fit(Line(), loader, ckpt_path=ckpt_path, weights_only=False)
        return samples.seen

    whole = fit(tmp_path)
    assert len(whole) == 12
    assert whole[:4] != whole[4:8] != whole[8:]  # every epoch has an order of its own
    for epoch in (0, 1):
        assert fit(None, tmp_path / f"{epoch}.ckpt") == whole[4 * (epoch + 1) :]
