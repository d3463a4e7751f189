"""Two processes share every epoch without help from the user, also after a resume."""

import json

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DistributedSampler

from datamodules import EvalSampler, SyntheticDataModule, TrainSampler

pytestmark = pytest.mark.ddp


class InterruptedRunError(Exception):
    """Stands for a killed process."""


class Recorder(pl.LightningModule):
    def __init__(self, folder, stop_at=None):
        super().__init__()
        self.net = torch.nn.Linear(3 * 8 * 8, 4)
        self.folder, self.stop_at = folder, stop_at
        self.lines, self.evaluated = [], []

    def training_step(self, batch, batch_idx):
        x, y = batch
        sums = sorted(x.double().sum((1, 2, 3)).tolist())
        self.lines.append([self.current_epoch, batch_idx, sums])
        if self.stop_at == (self.current_epoch, batch_idx):
            raise InterruptedRunError
        return torch.nn.functional.cross_entropy(self.net(x.flatten(1)), y)

    def validation_step(self, batch, batch_idx):
        self.evaluated += batch[0].double().sum((1, 2, 3)).tolist()

    def on_train_epoch_end(self):
        samplers = [self.trainer.train_dataloader.sampler, self.trainer.val_dataloaders.sampler]
        record = {
            "lines": self.lines,
            "evaluated": self.evaluated,
            "samplers": [type(s).__name__ for s in samplers],
            "weights": self.net.weight.detach().flatten().tolist(),
        }
        path = self.folder / f"rank{self.global_rank}-epoch{self.current_epoch}.json"
        path.write_text(json.dumps(record))
        self.evaluated = []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def run(folder, devices, batch_size, stop_at=None, resume=None):
    folder.mkdir(exist_ok=True)
    pl.seed_everything(0)
    data = SyntheticDataModule(
        num_classes=4, image_size=8, train_samples=49, val_samples=13, batch_size=batch_size,
        crop_padding=1, flip=0.5, seed=5,
    )  # fmt: skip
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp_spawn" if devices > 1 else "auto",
        max_epochs=2,
        logger=False,
        callbacks=[ModelCheckpoint(dirpath=folder, every_n_train_steps=4, save_top_k=-1)],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Recorder(folder, stop_at), datamodule=data, ckpt_path=resume)


def read(folder, rank, epoch):
    return json.loads((folder / f"rank{rank}-epoch{epoch}.json").read_text())


def test_samplers_are_of_the_kind_that_lightning_leaves_alone():
    assert issubclass(TrainSampler, DistributedSampler)
    assert issubclass(EvalSampler, DistributedSampler)


def test_two_processes_equal_one_with_the_doubled_batch(tmp_path):
    run(tmp_path / "one", 1, 8)
    run(tmp_path / "two", 2, 4)
    for epoch in range(2):
        alone = read(tmp_path / "one", 0, epoch)
        shares = [read(tmp_path / "two", rank, epoch) for rank in range(2)]
        assert all(s["samplers"] == ["TrainSampler", "EvalSampler"] for s in shares)
        for mine, first, second in zip(alone["lines"], shares[0]["lines"], shares[1]["lines"], strict=True):
            assert mine[:2] == first[:2] == second[:2]
            assert sorted(first[2] + second[2]) == mine[2]  # same samples, same augmentation
        together = sorted(shares[0]["evaluated"] + shares[1]["evaluated"])
        assert together == sorted(alone["evaluated"])  # 13 samples, none twice
        # the mean of two half-batch gradients is the full one up to the order of float sums
        torch.testing.assert_close(
            torch.tensor(shares[0]["weights"]), torch.tensor(alone["weights"]), rtol=1e-5, atol=1e-6
        )


@pytest.mark.slow
def test_two_processes_resume_in_the_middle_of_an_epoch(tmp_path):
    run(tmp_path / "whole", 2, 4)
    with pytest.raises(Exception, match="InterruptedRunError"):
        run(tmp_path / "cut", 2, 4, stop_at=(1, 4))
    checkpoints = sorted((tmp_path / "cut").glob("*step=8.ckpt"))
    run(tmp_path / "cut", 2, 4, resume=str(checkpoints[0]))
    for rank in range(2):
        whole, rest = read(tmp_path / "whole", rank, 1), read(tmp_path / "cut", rank, 1)
        assert [line[:2] for line in rest["lines"]] == [[1, 2], [1, 3], [1, 4], [1, 5]]
        assert rest["lines"] == whole["lines"][-4:]
        assert rest["weights"] == whole["weights"]
