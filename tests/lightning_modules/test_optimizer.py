"""Schedule and weight decay: the formula, every shipped recipe, and a run that goes on."""

import functools
import hashlib
import json
import math
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
import yaml
from torch import nn

import zoo
from lightning_modules import BaseTask
from lightning_modules.optimizer import StepSchedule, decay_groups, spared_from_decay

ROOT = Path(__file__).resolve().parents[2]
CURVES = json.loads(Path(__file__).with_name("recipes.json").read_text())
RECIPES = [
    pytest.param(name, curve, groups, id=name)
    for curve in CURVES
    for name, groups in curve["recipes"].items()
]
SCHEDULE = ("schedule", "warmup_epochs", "warmup_lr", "min_lr", "cosine_after_warmup", "schedule_interval")
OPTIMIZER = ("optimizer", "lr", "weight_decay", "momentum", "decay_all")
STARTS = ("pretrained", "weights", "hybrid")


def recipe(name: str) -> tuple[dict, int]:
    config = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
    return config["model"]["init_args"], config["trainer"]["max_epochs"]


def test_the_recipes_on_record_are_there():
    found = {f"{p.parent.name}/{p.stem}" for p in (ROOT / "configs").rglob("*.yaml")}
    missing = {p.id for p in RECIPES} - found
    assert not missing, "a recipe went; take it out of recipes.json"


def test_the_schedule_warms_up_and_falls_as_a_cosine():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = StepSchedule(optimizer, steps=110, warmup=10, warmup_lr=0.1, min_lr=0.01)
    rates = {}
    for step in (0, 5, 10, 60, 110, 200):
        schedule.step(step)
        rates[step] = optimizer.param_groups[0]["lr"]
    assert rates == pytest.approx({0: 0.1, 5: 0.55, 10: 1.0, 60: 0.505, 110: 0.01, 200: 0.01})


@pytest.mark.parametrize(("name", "curve", "groups"), RECIPES)
def test_the_rates_of_a_recipe_are_those_on_record(name, curve, groups):
    options, epochs = recipe(name)
    task = BaseTask(**{key: options[key] for key in (*SCHEDULE, *OPTIMIZER) if key in options})
    task.net = nn.Linear(2, 2)
    run = SimpleNamespace(
        estimated_stepping_batches=curve["steps"],
        train_dataloader=(),
        num_training_batches=curve["steps"] // epochs,
        accumulate_grad_batches=1,
        global_step=0,
    )
    task.trainer = run
    made = task.configure_optimizers()
    group, schedule = made["optimizer"].param_groups[0], made["lr_scheduler"]["scheduler"]
    for step, rate in curve["rates"].items():
        run.global_step = int(step)
        if run.global_step:  # the first rate is there from the beginning
            task.lr_scheduler_step(schedule, None)
        assert group["lr"] == pytest.approx(rate, rel=1e-12, abs=1e-18), step


@functools.lru_cache
def groups_of(model: str, arguments: str, decay_all: bool) -> dict[str, list]:
    holder = nn.Module()
    with torch.device("meta"):
        holder.model = zoo.create(model, **json.loads(arguments))
    names = {id(p): name for name, p in holder.named_parameters()}
    found = {"decayed": [], "spared": []}
    for group in decay_groups(holder, 0.1, decay_all):
        assert group["weight_decay"] in (0.1, 0.0)
        found["decayed" if group["weight_decay"] else "spared"] += [names[id(p)] for p in group["params"]]
    return {
        k: [len(v), hashlib.sha256("\n".join(sorted(v)).encode()).hexdigest()[:12]] for k, v in found.items()
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "curve", "groups"), [p for p in RECIPES if p.values[2]])
def test_a_recipe_decays_the_parameters_on_record(name, curve, groups):
    options, _ = recipe(name)
    arguments = {k: v for k, v in options.get("model_args", {}).items() if k not in STARTS}
    found = groups_of(options["model"], json.dumps(arguments), options.get("decay_all", False))
    assert found == groups


def test_no_weight_decay_makes_one_group(tiny_task):
    groups = tiny_task(weight_decay=0.0).parameter_groups()
    assert [g["weight_decay"] for g in groups] == [0.0]


class Rates(pl.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_every_step_of_a_run_has_its_rate(tiny_task, tiny_data, trainer):
    rates = Rates()
    trainer(max_epochs=2, callbacks=[rates]).fit(tiny_task(lr=0.4, warmup_epochs=0.5), tiny_data())
    expected = [0.0, 0.2, *(0.2 * (1 + math.cos(math.pi * k / 6)) for k in range(6))]
    assert rates.seen == pytest.approx(expected)


def test_a_run_that_goes_on_takes_the_rate_and_the_length_that_are_typed(
    tiny_task, tiny_data, trainer, tmp_path
):
    first = trainer(max_epochs=1)
    first.fit(tiny_task(lr=0.01), tiny_data())
    first.save_checkpoint(tmp_path / "x.ckpt")
    rates = Rates()
    run = trainer(max_epochs=2, callbacks=[rates])
    run.fit(tiny_task(lr=0.4), tiny_data(), ckpt_path=tmp_path / "x.ckpt", weights_only=True)
    assert rates.seen[1:] == pytest.approx([0.2 * (1 + math.cos(math.pi * k / 8)) for k in (5, 6, 7)])


def test_spared_parameters_of_neurons_are_named(tiny_task):
    task = tiny_task(model_args={"time_steps": 2, "channels": [4, 8], "neuron": "plif"})
    assert any(name.endswith(".w") for name in spared_from_decay(task))
