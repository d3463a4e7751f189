"""What was typed counts in a run that goes on; callbacks that move rates and groups are followed."""

import math

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, BaseFinetuning, LearningRateFinder
from torch import nn

from lightning_modules.optimizer import StepSchedule


class Groups(pl.Callback):
    """Rates and weight decays of every step."""

    def __init__(self):
        self.rates, self.decays = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        groups = trainer.optimizers[0].param_groups
        self.rates.append([g["lr"] for g in groups])
        self.decays.append([g["weight_decay"] for g in groups])


@pytest.fixture
def first(tiny_task, tiny_data, trainer, tmp_path):
    """A checkpoint after an epoch of four steps."""

    def make(callbacks=(), **options):
        run = trainer(max_epochs=1, callbacks=list(callbacks))
        run.fit(tiny_task(**{"schedule": "constant", **options}), tiny_data())
        run.save_checkpoint(tmp_path / "first.ckpt")
        return tmp_path / "first.ckpt"

    return make


@pytest.fixture
def go_on(tiny_task, tiny_data, trainer):
    def run(path, callbacks=(), trainer_options=None, **options):
        seen = Groups()
        made = trainer(**{"max_epochs": 2, **(trainer_options or {}), "callbacks": [*callbacks, seen]})
        made.fit(
            tiny_task(**{"schedule": "constant", **options}), tiny_data(), ckpt_path=path, weights_only=True
        )
        return made, seen

    return run


def test_rate_and_decay_that_are_typed_hold_from_the_first_step(first, go_on):
    path = first(lr=0.01, weight_decay=0.02)
    _, seen = go_on(path, lr=0.001, weight_decay=0.5)
    assert seen.rates == [[0.001, 0.001]] * 4
    assert seen.decays == [[0.5, 0.0]] * 4


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.1), (0.1, 0.0)])
def test_weight_decay_switched_on_or_off_keeps_every_parameters_moments(first, go_on, before, after):
    path = first(weight_decay=before)
    stored = torch.load(path, weights_only=True)
    names = [name for group in stored["optimizer_parameters"] for name in group]
    expected = {n: stored["optimizer_states"][0]["state"][k]["exp_avg"] for k, n in enumerate(names)}

    class Moments(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 0:
                state = trainer.optimizers[0].state
                self.found = {n: state[p]["exp_avg"].clone() for n, p in pl_module.named_parameters()}

    moments = Moments()
    _, seen = go_on(path, callbacks=[moments], weight_decay=after)
    assert seen.decays[0] == ([0.1, 0.0] if after else [0.0])
    assert set(moments.found) == set(expected)
    assert all(torch.equal(value, moments.found[name]) for name, value in expected.items())


def test_momentum_that_is_typed_counts(first, go_on):
    path = first(optimizer="momentum", momentum=0.9)
    made, _ = go_on(path, optimizer="momentum", momentum=0.5)
    assert {g["momentum"] for g in made.optimizers[0].param_groups} == {0.5}


def test_another_optimizer_is_refused_before_the_first_step(first, go_on):
    path = first()
    with pytest.raises(ValueError, match="state of optimizer 'adamw', but 'sgd' is asked for"):
        go_on(path, optimizer="sgd")


def test_another_schedule_and_length_that_are_typed_count(first, go_on):
    path = first(lr=0.4)
    _, seen = go_on(path, lr=0.4, schedule="cosine", trainer_options={"max_epochs": 3})
    assert [r[0] for r in seen.rates] == pytest.approx(
        [0.2 * (1 + math.cos(math.pi * k / 12)) for k in range(4, 12)]
    )


@pytest.mark.parametrize(
    ("run", "epoch"),
    [
        ({"max_epochs": -1, "max_steps": 5}, 4),
        ({"max_epochs": 50, "max_steps": 5}, 4),
        ({"max_epochs": 2, "accumulate_grad_batches": 3}, 2),
        ({"max_epochs": -1, "max_steps": 3, "limit_train_batches": 0.5}, 2),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_warm_up_counts_the_steps_of_an_epoch_whatever_ends_the_run(
    tiny_task, tiny_data, trainer, run, epoch
):
    rates = {}

    class Rates(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            rates.setdefault(trainer.global_step, trainer.optimizers[0].param_groups[0]["lr"])

    task = tiny_task(lr=0.4, warmup_epochs=1, schedule="constant")
    trainer(**run, callbacks=[Rates()], limit_val_batches=0).fit(task, tiny_data())
    assert [rates[k] for k in range(epoch + 1)] == pytest.approx([0.4 * k / epoch for k in range(epoch + 1)])


def test_a_warm_up_in_epochs_of_unknown_length_is_refused(tiny_task, trainer):
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            while True:
                yield torch.zeros(1, 16, 16), 0

    loader = torch.utils.data.DataLoader(Endless(), batch_size=2)
    with pytest.raises(ValueError, match="limit_train_batches"):
        trainer(max_epochs=-1, max_steps=3).fit(tiny_task(warmup_epochs=1), loader)


def test_a_constant_rate_needs_no_end(tiny_task, tiny_data, trainer):
    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = True

    run = trainer(max_epochs=-1, limit_val_batches=0, callbacks=[Stop()])
    run.fit(tiny_task(schedule="constant"), tiny_data())
    assert run.global_step == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("warmup", [0, 1])
def test_the_rate_that_the_finder_found_is_the_peak(tiny_task, tiny_data, trainer, warmup):
    finder, seen = LearningRateFinder(num_training_steps=20, early_stop_threshold=None), Groups()
    run = trainer(max_epochs=2, callbacks=[finder, seen], limit_val_batches=0)
    task = tiny_task(lr=0.3, schedule="constant", warmup_epochs=warmup)
    run.fit(task, tiny_data(train_samples=160))
    found = finder.optimal_lr.suggestion()
    rates = [rates[0] for rates in seen.rates[-run.global_step :]]
    assert task.lr == found
    assert max(rates) == found
    assert rates[20:] == [found] * 20
    assert warmup or rates[:20] == [found] * 20


class Unfreeze(BaseFinetuning):
    def __init__(self, at, lr=None):
        super().__init__()
        self.at, self.lr = at, lr

    def freeze_before_training(self, pl_module):
        self.freeze(list(pl_module.model.children())[:-1])

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == self.at:
            self.unfreeze_and_add_param_group(list(pl_module.model.children())[:-1], optimizer, lr=self.lr)


def test_layers_that_are_unfrozen_later_follow_the_schedule(tiny_task, tiny_data, trainer):
    seen = Groups()
    run = trainer(max_epochs=3, callbacks=[Unfreeze(1, lr=0.003), seen])
    run.fit(tiny_task(lr=0.4), tiny_data())
    cosine = [0.5 * (1 + math.cos(math.pi * k / 12)) for k in range(12)]
    head, body = [r[0] for r in seen.rates], [r[-1] for r in seen.rates[4:]]
    assert head == pytest.approx([0.4 * c for c in cosine])
    assert body == pytest.approx([0.003 * c / cosine[4] for c in cosine[4:]])


def test_a_run_with_unfrozen_layers_goes_on(first, go_on):
    path = first([Unfreeze(0, lr=0.003)], lr=0.4, schedule="cosine")
    _, seen = go_on(path, [Unfreeze(0, lr=0.003)], lr=0.4, schedule="cosine")
    leader = [0.2 * (1 + math.cos(math.pi * k / 8)) for k in range(4, 8)]
    assert [r[0] for r in seen.rates] == pytest.approx(leader)
    assert [r[-1] for r in seen.rates] == pytest.approx([0.003 * lr / 0.4 for lr in leader])


def test_a_callback_that_sets_the_rate_of_its_group_is_followed(tiny_task, tiny_data, trainer):
    task = tiny_task(lr=0.4, schedule="constant")
    task.backbone = nn.Sequential(*list(task.model.children())[:-1])
    seen = Groups()
    warm = BackboneFinetuning(1, lambda epoch: 2.0, backbone_initial_lr=0.01, should_align=True)
    trainer(max_epochs=4, callbacks=[warm, seen]).fit(task, tiny_data())
    assert [r[-1] for r in seen.rates[4:]] == pytest.approx([0.01] * 4 + [0.02] * 4 + [0.04] * 4)


def test_groups_keep_their_proportion_when_the_rate_changes():
    weights = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.4, 0.1)]
    optimizer = torch.optim.SGD(weights, lr=0.4)
    schedule = StepSchedule(optimizer, steps=10, schedule="constant")
    schedule.change_rate(0.4, 0.2)
    schedule.take_back(3)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.2, 0.05])


@pytest.mark.parametrize(("every", "after"), [(2, 1), (3, 2), (3, 3)])
def test_gradients_of_batches_since_the_last_step_survive(
    tiny_task, tiny_data, trainer, tmp_path, every, after
):
    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx + 1 == after:
                trainer.save_checkpoint(tmp_path / f"{every}-{after}.ckpt")

    def fit(callbacks, path=None):
        torch.manual_seed(0)
        task, data = tiny_task(), tiny_data(train_samples=40)
        run = trainer(accumulate_grad_batches=every, limit_val_batches=0, callbacks=callbacks)
        run.fit(task, data, ckpt_path=path, weights_only=True if path else None)
        return task.state_dict()

    whole = fit([Save()])
    path = tmp_path / f"{every}-{after}.ckpt"
    stored = torch.load(path, weights_only=True)
    assert bool(stored["gradients"]) == bool(after % every)
    resumed = fit([], path)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
