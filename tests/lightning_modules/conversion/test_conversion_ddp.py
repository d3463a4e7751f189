"""Two processes calibrate alike and fine-tune like one with the doubled batch."""

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

import zoo
from datamodules import SyntheticDataModule
from lightning_modules import ConversionTask, Energy, FiringRate


class WithoutNorms(zoo.AnalogModel):
    """Two ReLUs and no batch statistics, which need SyncBatchNorm and with it a GPU."""

    def __init__(self, num_classes=4, in_chans=1):
        super().__init__(num_classes=num_classes, in_chans=in_chans, num_features=16)
        self.stem = nn.Sequential(nn.Conv2d(in_chans, 8, 3, stride=2, padding=1), nn.ReLU())
        self.stage = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU())
        self.classifier = nn.Linear(16, num_classes)
        self.feature_info = [{"num_chs": 16, "reduction": 4, "module": "stage"}]

    def forward_stem(self, x):
        return self.stem(x)

    def stages(self):
        return [self.stage]


@zoo.register_model
def analog_without_norms(**kwargs):
    return zoo.build_model(WithoutNorms, "analog_without_norms", {}, **kwargs)


class Watch(pl.Callback):
    def __init__(self):
        self.losses, self.spread = [], None

    def on_train_start(self, trainer, task):
        theta = torch.cat([b.flatten() for n, b in task.model.named_buffers() if n.endswith("v_threshold")])
        every = trainer.strategy.all_gather(theta).view(trainer.world_size, -1)
        self.spread = float((every - every[:1]).abs().max())
        self.thresholds = theta.tolist()

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        self.losses.append(float(trainer.strategy.reduce(outputs["loss"].detach().clone(), reduce_op="mean")))


if __name__ == "__main__":
    processes, out = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    pl.seed_everything(5, verbose=False)
    data = SyntheticDataModule(
        image_size=16, in_chans=1, num_classes=4, batch_size=16 // processes, eval_batch_size=8,
        train_samples=128, val_samples=32, test_samples=32, noise=8.0,
    )
    task = ConversionTask(
        source={"model": "analog_without_norms", "pretrained": False}, method="qcfs", time_steps=3,
        calibration={"samples": 32, "batch_size": 8}, input_size=[1, 16, 16], num_classes=4, in_chans=1,
        lr=2e-2,
    )
    watch = Watch()
    trainer = pl.Trainer(
        accelerator="cpu", devices=processes, strategy="ddp" if processes > 1 else "auto", max_epochs=4,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[watch, FiringRate(), Energy(batches=0)],
    )
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("test/")}
    if trainer.is_global_zero:
        with open(out, "w") as file:
            found = {"losses": watch.losses, "spread": watch.spread, "thresholds": watch.thresholds}
            json.dump({**found, "metrics": metrics}, file)
'''


def run(folder: Path, processes: int) -> dict:
    script, out = folder / "train.py", folder / f"{processes}.json"
    script.write_text(SCRIPT)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(script), str(processes), str(out)]
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_equal_one_with_the_doubled_batch(tmp_path):
    one, two = run(tmp_path, 1), run(tmp_path, 2)
    assert two["spread"] == 0.0
    assert two["thresholds"] == pytest.approx(one["thresholds"])
    assert min(one["thresholds"]) > 0
    assert len(one["losses"]) == len(two["losses"]) == 32
    assert one["losses"][-1] < one["losses"][0] - 0.1, "the network must learn for this to mean anything"
    # sums in another order move a membrane by the last bit, and now and then a spike with it
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-2)
    for name, value in one["metrics"].items():
        assert two["metrics"][name] == pytest.approx(value, rel=2e-2), name
    assert one["metrics"]["test/firing_rate"] > 0
