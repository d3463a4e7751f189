"""Data modules in the hands of Lightning's Trainer: predict, overfit, tune, validate."""

import lightning.pytorch as pl
import pytest
import torch
from PIL import Image

from datamodules import DigitsDataModule, SyntheticDataModule


class Task(pl.LightningModule):
    def __init__(self, features=64, classes=10):
        super().__init__()
        self.net = torch.nn.Linear(features, classes)
        self.seen = []
        self.hits = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen.append(x.sum().item())
        return torch.nn.functional.cross_entropy(self.net(x.flatten(1)), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val/acc1", (self.net(x.flatten(1)).argmax(1) == y).float().mean(), batch_size=len(y))

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test/acc1", (self.net(x.flatten(1)).argmax(1) == y).float().mean(), batch_size=len(y))

    def predict_step(self, batch, batch_idx):
        x, paths = batch
        return list(zip(self.net(x.flatten(1)).argmax(1).tolist(), paths, strict=True))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def trainer(folder, **options):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )


def test_real_digits_are_learned(tmp_path):
    pl.seed_everything(0)
    data = DigitsDataModule(batch_size=32, seed=0)
    task, runner = Task(), trainer(tmp_path, max_epochs=6)
    runner.fit(task, datamodule=data)
    assert runner.validate(task, datamodule=data, verbose=False)[0]["val/acc1"] > 0.9
    assert runner.test(task, datamodule=data, verbose=False)[0]["test/acc1"] > 0.9


@pytest.mark.parametrize("workers", [0, 1])
def test_predicting_pairs_classes_and_paths(tmp_path, workers):
    for i in range(5):
        Image.new("L", (20, 30), color=50 * i).save(tmp_path / f"{i}.png")
    data = DigitsDataModule(predict_dir=str(tmp_path), batch_size=2, num_workers=workers)
    batches = trainer(tmp_path).predict(Task(), datamodule=data)
    pairs = [pair for batch in batches for pair in batch]
    assert [path for _, path in pairs] == [str(tmp_path / f"{i}.png") for i in range(5)]
    assert all(0 <= label < 10 for label, _ in pairs)


def small(**options):
    return SyntheticDataModule(
        num_classes=4, image_size=8, train_samples=40, batch_size=8, num_workers=0,
        crop_padding=1, **options,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_overfitting_repeats_the_same_batches(tmp_path):
    task = Task(192, 4)
    trainer(tmp_path, max_epochs=3, overfit_batches=2).fit(task, datamodule=small())
    assert len(task.seen) == 6
    assert task.seen[:2] == task.seen[2:4] == task.seen[4:]


def test_reloading_every_epoch_changes_nothing(tmp_path):
    seen = []
    for options in ({}, {"reload_dataloaders_every_n_epochs": 1}):
        task = Task(192, 4)
        trainer(tmp_path, max_epochs=3, **options).fit(task, datamodule=small())
        seen.append(task.seen)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 15


def test_a_second_fit_starts_from_the_first_epoch(tmp_path):
    data, first, second = small(), Task(192, 4), Task(192, 4)
    trainer(tmp_path, max_epochs=1).fit(first, datamodule=data)
    trainer(tmp_path, max_epochs=1).fit(second, datamodule=data)
    assert first.seen == second.seen
    assert len(first.seen) == 5


def test_looking_at_the_loader_during_training_shows_a_whole_epoch(tmp_path):
    class Curious(pl.Callback):
        lengths = ()

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.lengths += (sum(1 for _ in trainer.datamodule.train_dataloader()),)

    curious = Curious()
    trainer(tmp_path, max_epochs=1, callbacks=[curious]).fit(Task(192, 4), datamodule=small())
    assert curious.lengths == (5,) * 5


def test_a_resume_with_another_batch_size_warns(tmp_path):
    def run(batch_size, stop, resume=None):
        runner = trainer(tmp_path, max_epochs=2, max_steps=stop)
        data = SyntheticDataModule(
            num_classes=4, image_size=8, train_samples=40, batch_size=batch_size, num_workers=0
        )
        runner.fit(Task(192, 4), datamodule=data, ckpt_path=resume)
        return runner

    path = str(tmp_path / "half.ckpt")
    run(8, 3).save_checkpoint(path)
    with pytest.warns(UserWarning, match=r"another order \(batch_size was 8, is 4\)"):
        run(4, 6, path)
