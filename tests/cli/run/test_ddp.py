"""Two processes train like one with the doubled batch; what is measured is summed over both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = '''
import json
import sys

import lightning.pytorch as pl
import torch
from torch import nn

import spiking
import zoo
from datamodules import SyntheticDataModule
from lightning_modules import ClassificationTask, Energy, FiringRate
from spiking.layers import fold_time


class WithoutNorms(zoo.SpikingModel):
    """Two spiking layers and no batch statistics, which need SyncBatchNorm and with it a GPU."""

    def __init__(self, time_steps=3, num_classes=4, in_chans=1):
        super().__init__(
            time_steps=time_steps, num_classes=num_classes, in_chans=in_chans, num_features=16
        )
        self.stem = nn.Conv2d(in_chans, 8, 3, stride=2, padding=1)
        self.first = spiking.PLIF(v_threshold=0.3, surrogate="atan")
        self.conv = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.second = spiking.LIF(v_threshold=0.1, surrogate="atan")
        self.classifier = nn.Linear(16, num_classes)
        self.feature_info = [{"num_chs": 16, "reduction": 4, "module": "second"}]

    def forward_stem(self, x, repeats):
        return fold_time(self.stem, x)

    def stages(self):
        return [nn.Sequential()]

    def forward_features(self, x):
        x = self.first(self.encode(x).contiguous())
        return self.second(fold_time(self.conv, x))


@zoo.register_model
def spiking_without_norms(**kwargs):
    return zoo.build_model(WithoutNorms, "spiking_without_norms", {}, **kwargs)


class Losses(pl.Callback):
    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        self.losses.append(float(trainer.strategy.reduce(outputs["loss"].detach().clone(), reduce_op="mean")))


if __name__ == "__main__":
    processes, model, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.set_num_threads(1)
    pl.seed_everything(5, verbose=False)
    data = SyntheticDataModule(
        image_size=16, in_chans=1, num_classes=4, batch_size=16 // processes, eval_batch_size=8,
        train_samples=128, val_samples=32, test_samples=32, noise=8.0,
    )
    arguments = {} if model == "spiking_without_norms" else {"channels": [8, 16], "pool_size": 2}
    task = ClassificationTask(model, arguments, num_classes=4, in_chans=1, lr=2e-2)
    losses = Losses()
    trainer = pl.Trainer(
        accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto", max_epochs=4,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[losses, FiringRate(), Energy(batches=0)],
    )
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("test/")}
    if trainer.is_global_zero:
        with open(out, "w") as file:
            json.dump({"losses": losses.losses, "metrics": metrics}, file)
'''


def run(folder: Path, processes: int, model: str) -> dict:
    script, out = folder / "train.py", folder / f"{model}-{processes}.json"
    script.write_text(SCRIPT)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(script), str(processes), model, str(out)]
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.mark.ddp
def test_two_processes_equal_one_with_the_doubled_batch(tmp_path):
    one, two = run(tmp_path, 1, "spiking_without_norms"), run(tmp_path, 2, "spiking_without_norms")
    assert len(one["losses"]) == len(two["losses"]) == 32
    assert one["losses"][-1] < one["losses"][0] - 0.1, "the network must learn for this to mean anything"
    # sums in another order move a membrane by the last bit, and now and then a spike with it
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-3)
    for name, value in one["metrics"].items():
        assert two["metrics"][name] == pytest.approx(value, rel=1e-2), name
    assert one["metrics"]["test/firing_rate"] > 0


@pytest.mark.ddp
@pytest.mark.slow
def test_with_batch_norms_two_processes_learn_as_well(tmp_path):
    one, two = run(tmp_path, 1, "spiking_cnn_nano"), run(tmp_path, 2, "spiking_cnn_nano")
    assert one["metrics"]["test/acc1"] > 0.9
    assert two["metrics"]["test/acc1"] > 0.9
