"""Damage to weights, statistics and signals stops a run where it shows, and is kept in no file.

The faults are drawn from a seed: which tensor, which value, at which step.
"""

from __future__ import annotations

import random

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision

import zoo
from conversion import ConversionError, convert
from spiking.measure.finite import damaged

NAN, INF = float("nan"), float("inf")
STEPS = 8  # of two epochs


def strike(tensor: torch.Tensor, value: float):
    """Write into the first entry."""
    tensor[(0,) * tensor.dim()] = value


class Damage(pl.Callback):
    """Writes ``value`` into one entry of a tensor, before or after a step."""

    def __init__(self, name: str, value: float, step: int, after: bool = False):
        self.name, self.value, self.step, self.after = name, value, step, after

    def _strike(self, trainer: pl.Trainer, task: pl.LightningModule, step: int):
        if step == self.step:
            strike(task.state_dict()[self.name], self.value)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not self.after:
            self._strike(trainer, pl_module, trainer.global_step)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.after:
            self._strike(trainer, pl_module, trainer.global_step)


def floats(task: pl.LightningModule) -> list[str]:
    return [k for k, v in task.state_dict().items() if v.is_floating_point()]


def faults(names: list[str], count: int) -> list[tuple[str, float, int, bool]]:
    plan = random.Random(7)
    return [
        (plan.choice(names), plan.choice([NAN, INF, -INF]), plan.randint(1, STEPS - 1), plan.random() < 0.5)
        for _ in range(count)
    ]


@pytest.mark.parametrize("number", range(6))
def test_a_run_stops_and_keeps_nothing_damaged(tiny_task, tiny_data, trainer, tmp_path, number):
    surrogate = ["sigmoid", "rect", "triangle"][number % 3]  # some have no gradient where the charge is NaN
    task = tiny_task(
        model_args={"time_steps": 2, "channels": [4, 8], "neuron_args": {"surrogate": surrogate}}
    )
    name, value, step, after = faults(floats(task), 6)[number]
    keep = ModelCheckpoint(dirpath=tmp_path / "kept", every_n_train_steps=1, save_top_k=-1, save_last=True)
    run = trainer(max_epochs=2, enable_checkpointing=True, callbacks=[Damage(name, value, step, after), keep])
    with pytest.raises(FloatingPointError, match=r"the weights are damaged .*(holds NaN or infinite values)"):
        run.fit(task, tiny_data())
    assert run.global_step <= step + 1
    kept = list((tmp_path / "kept").glob("*.ckpt"))
    assert kept or step == 1
    for path in kept:
        state = torch.load(path, weights_only=False)["state_dict"]
        assert all(v.isfinite().all() for v in state.values()), path


def test_the_last_step_is_looked_at(tiny_task, tiny_data, trainer):
    task = tiny_task()
    run = trainer(
        max_epochs=2, limit_val_batches=0, callbacks=[Damage("model.stem.0.weight", NAN, STEPS, after=True)]
    )
    with pytest.raises(FloatingPointError, match=r"model\.stem\.0\.weight holds NaN"):
        run.fit(task, tiny_data())
    assert run.global_step == STEPS


def test_signals_between_finite_weights(tiny_task, tiny_data, trainer):
    """Finite weights whose products overflow: no weight shows it, and neither does the loss."""
    task = tiny_task()
    task.model.stem[1].weight.data.fill_(3e38)
    task.model.stem[1].bias.data.fill_(-3e38)
    task.model.stem[0].weight.data.mul_(1e3)
    task.model.stem[1].running_var.fill_(1e-30)
    for stage in ("validate", "test"):
        with pytest.raises(FloatingPointError, match="NaN or infinite; look at the layer before it"):
            getattr(trainer(), stage)(task, tiny_data(), verbose=False)


def test_a_scaler_that_skips_a_step_is_no_fault(tiny_task, tiny_data, trainer):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
    run = trainer(plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    task = tiny_task()
    before = {k: v.clone() for k, v in task.named_parameters()}
    run.fit(task, tiny_data())
    assert scaler.get_scale() < 2.0**126, "gradients overflowed"
    assert all(torch.equal(before[k], v) for k, v in task.named_parameters())


def test_weights_whose_squares_overflow_are_no_fault(tiny_task):
    task = tiny_task()
    task.model.stem[0].weight.data.fill_(1e30)
    task.require_finite(torch.tensor(1.0))
    with pytest.raises(FloatingPointError, match="the loss is nan at the start"):
        task.require_finite(torch.tensor(NAN))


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("stem.1.running_var", -1.0, "negative variances"),
        ("stem.1.running_var", NAN, "NaN or infinite values"),
        ("stem.1.running_mean", INF, "NaN or infinite values"),
        ("stem.0.weight", NAN, "NaN or infinite values"),
    ],
)
def test_damage_passes_no_door(tmp_path, name, value, what):
    model = zoo.load("spiking_cnn_nano")
    state = model.state_dict()
    strike(state[name], value)
    with pytest.raises(zoo.CheckpointError, match=rf"{name} holds {what}"):
        zoo.save(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(zoo.CheckpointError, match=rf"with {what}: {name}"):
        zoo.load("spiking_cnn_nano", weights=tmp_path / "w.pth")
    source = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    source = torch.nn.Sequential(source, torch.nn.Flatten(), torch.nn.Linear(4 * 36, 3)).eval()
    own = name.replace("stem", "0")
    strike(source.state_dict()[own], value)
    with pytest.raises(ConversionError, match=rf"{own} holds {what}"):
        convert(source, "qcfs", 4, torch.randn(4, 1, 8, 8), progress=False)


def test_infinity_is_no_damage_in_masks_and_bounds():
    class Masked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lift, self.head = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)
            self.register_buffer("mask", torch.full((8,), INF).index_fill(0, torch.tensor([0]), 0.0))

        def forward(self, x):
            y = self.lift(x).relu()
            return self.head(y * torch.softmax(-self.mask + y, -1))

    torch.manual_seed(0)
    model, x = Masked().eval(), torch.randn(8, 6)
    assert damaged(model.state_dict().items(), model) == {}
    snn = convert(model, "dcgs", 16, x, progress=False)
    with torch.no_grad():
        torch.testing.assert_close(snn(x), model(x), atol=1e-2, rtol=0)
    strike(model.mask, NAN)
    assert list(damaged(model.state_dict().items(), model)) == ["mask"]
    with pytest.raises(ConversionError, match="mask holds NaN"):
        convert(model, "dcgs", 4, x, progress=False)
