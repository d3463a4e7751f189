"""Runs cut off in the middle of an epoch end like runs that were not, under Lightning's Trainer."""

import warnings
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules import SyntheticDataModule


class InterruptedRunError(Exception):
    """Stands for a killed process: nothing after it runs."""


class Recorder(pl.LightningModule):
    """A linear classifier that notes which batches it saw and under which learning rate."""

    def __init__(self, ask_for_steps=False, stop_at=None):
        super().__init__()
        self.net = torch.nn.Linear(3 * 8 * 8, 4)
        self.ask_for_steps = ask_for_steps
        self.stop_at = stop_at
        self.seen = []
        self.validated_at = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.seen.append((self.current_epoch, batch_idx, self.global_step, rate, x.sum().item()))
        loss = torch.nn.functional.cross_entropy(self.net(x.flatten(1)), y)
        self.log("train/loss", loss)
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.stop_at == (self.current_epoch, batch_idx):
            raise InterruptedRunError

    def validation_step(self, batch, batch_idx):
        if batch_idx == 0 and not self.trainer.sanity_checking:
            self.validated_at.append(self.global_step)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        # asking makes Lightning build the loader before it restores the checkpoint
        total = int(self.trainer.estimated_stepping_batches) if self.ask_for_steps else 40
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(total, 1))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def data(**options):
    options = {"num_workers": 0, "seed": 3, **options}
    return SyntheticDataModule(
        num_classes=4,
        image_size=8,
        train_samples=90,  # 11 batches of 8, two samples dropped
        val_samples=8,
        test_samples=8,
        batch_size=8,
        crop_padding=1,
        flip=0.5,
        **options,
    )


def run(folder, *, stop_at=None, resume=None, ask=False, workers=0, every=4, **options):
    pl.seed_everything(0)
    model = Recorder(ask, stop_at)
    keep = ModelCheckpoint(
        dirpath=folder,
        filename="at-{step}",
        every_n_train_steps=every,
        every_n_epochs=None if every else 1,
        save_top_k=-1,
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[keep],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **{"max_epochs": 3, "num_sanity_val_steps": 0, **options},
    )
    try:
        trainer.fit(model, datamodule=data(num_workers=workers), ckpt_path=resume)
    except InterruptedRunError:
        assert stop_at is not None
    return model, trainer


def newest(folder: Path) -> str:
    return str(max(folder.glob("*.ckpt"), key=lambda p: int(p.stem.split("step=")[1])))


CASES = {
    "plain": {},
    "steps asked for in configure_optimizers": {"ask": True},
    "workers": {"workers": 2},
    "workers, steps asked for": {"workers": 2, "ask": True},
    "accumulation that divides nothing": {"accumulate_grad_batches": 3, "every": 2},
    "max_steps": {"max_steps": 30, "max_epochs": -1},
    "checkpoint at the last batch of an epoch": {"every": 11, "stop_at": (1, 2)},
    "checkpoint at the last batch, max_steps": {
        "every": 11,
        "stop_at": (1, 2),
        "max_steps": 30,
        "max_epochs": -1,
    },
    "checkpoint after the epoch": {"every": None, "stop_at": (2, 2)},
    "limited batches": {"limit_train_batches": 9},
    "validation within the epoch": {"val_check_interval": 5},
    "validation by fraction, sanity check": {"val_check_interval": 0.5, "num_sanity_val_steps": 1},
}


@pytest.mark.parametrize("stop_at", [(0, 6), (1, 8), (2, 5)], ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_resumed_run_sees_the_same_batches_and_ends_with_the_same_weights(case, stop_at, tmp_path):
    case = dict(case)
    stop_at = case.pop("stop_at", stop_at)
    whole, whole_trainer = run(tmp_path / "whole", **case)
    cut, _ = run(tmp_path / "cut", stop_at=stop_at, **case)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not\n? ?resumable.*")
        rest, trainer = run(tmp_path / "cut", resume=newest(tmp_path / "cut"), **case)
    assert 0 < len(cut.seen) < len(whole.seen)
    assert rest.seen == whole.seen[-len(rest.seen) :]
    assert len(whole.seen) - len(cut.seen) <= len(rest.seen)
    assert trainer.global_step == whole_trainer.global_step
    assert trainer.num_training_batches == whole_trainer.num_training_batches
    for mine, theirs in zip(rest.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert set(rest.validated_at) <= set(whole.validated_at)
