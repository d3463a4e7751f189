"""Which parameters decay, and how the learning rate moves."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, Literal

import torch
from timm.optim import param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from typing_extensions import override

import spiking

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

Schedule = Literal["cosine", "constant"]
SETTINGS = ("lr", "initial_lr", "weight_decay", "momentum")  # of a group, what a task configures


def spared_from_decay(module: nn.Module) -> set[str]:
    """Names of parameters without weight decay: vectors, scalars, neurons' own, and the model's list."""
    spared = {name for name, p in module.named_parameters() if p.dim() <= 1}
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        if isinstance(part, spiking.Neuron):
            spared |= {f"{prefix}{name}" for name, _ in part.named_parameters(recurse=False)}
        listed = getattr(part, "no_weight_decay", None)
        if callable(listed):
            spared |= {f"{prefix}{name}" for name in listed()}
    return spared


def decay_groups(module: nn.Module, weight_decay: float, decay_all: bool = False) -> list[dict[str, Any]]:
    """Trainable parameters as groups of an optimiser, those with weight decay first.

    Args:
        module: the task.
        weight_decay: of the first group; 0 makes one group of all.
        decay_all: decay everything, see `spared_from_decay`.
    """
    spared = set() if decay_all else spared_from_decay(module)
    groups: list[dict[str, Any]] = param_groups_weight_decay(
        module,
        weight_decay,
        weight_decay_exclude_1d=False,  # named in `spared`, where they are to be
        no_weight_decay_list=spared,
    )
    return groups[::-1]


class CountedSchedule(abc.ABC):
    """Learning rates by the number of optimiser steps alone, so that there is no state to resume."""

    @abc.abstractmethod
    def step(self, done: int) -> None:
        """Set the rates after ``done`` optimiser steps."""

    @abc.abstractmethod
    def take_back(self, done: int) -> None:
        """Put what is configured in the place of what a checkpoint brought."""

    def state_dict(self) -> dict[str, Any]:
        """Empty, see above."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - nothing is to be done
        """Pass over what a checkpoint holds."""


class StepSchedule(CountedSchedule):
    """A schedule of timm, counted in optimiser steps. It has no state.

    The rate depends on the number of steps alone, so that a run which goes on with another length or
    another rate takes these, and not those of its checkpoint, which timm's own ``state_dict`` holds.

    A group that joins later, as callbacks add that unfreeze layers, keeps its distance from the others: from
    the rate that it came with, or was given since, it falls by the same share as they do.

    Args:
        optimizer: whose rates are moved; each group's ``lr`` is the one after the warm-up.
        schedule: ``"cosine"`` or ``"constant"``, see `BaseTask`; so for the other arguments.
        steps: of the whole run.
        warmup: steps of the warm-up.
        hold: steps for which the rate stays, those of an epoch where it moves by epochs.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        schedule: Schedule = "cosine",
        steps: int,
        warmup: int = 0,
        warmup_lr: float = 0.0,
        min_lr: float = 0.0,
        cosine_after_warmup: bool = True,
        hold: int = 1,
    ) -> None:
        self.optimizer = optimizer
        self.hold = hold
        self._options: dict[str, Any] = {
            "sched": schedule,
            "num_epochs": max(1, steps - warmup) if cosine_after_warmup else steps,
            "warmup_epochs": warmup,
            "warmup_lr": warmup_lr,
            "warmup_prefix": cosine_after_warmup,
            "min_lr": min_lr,
            "step_on_epochs": False,
            "updates_per_epoch": 1,  # all lengths are in steps
        }
        self._curves: dict[float, tuple[Any, Optimizer]] = {}
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self._configured = [{k: g[k] for k in SETTINGS if k in g} for g in optimizer.param_groups]
        self._done = 0
        self.step(0)

    def rate(self, lr: float, done: int) -> float:
        """The rate after ``done`` optimiser steps of a group whose rate after the warm-up is ``lr``."""
        if lr not in self._curves:
            stand_in: Optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
            self._curves[lr] = create_scheduler_v2(stand_in, **self._options)[0], stand_in
        timm, stand_in = self._curves[lr]
        timm.step_update(done // self.hold * self.hold)
        return float(stand_in.param_groups[0]["lr"])

    @override
    def step(self, done: int) -> None:
        for group in self.optimizer.param_groups:
            if "initial_lr" in group:
                group["lr"] = self.rate(group["initial_lr"], done) * group.get("lr_scale", 1.0)
            else:
                self._move_joined(group, done)
        self._done = done

    def _move_joined(self, group: dict[str, Any], done: int) -> None:
        if group["lr"] != group.get("scheduled_lr"):  # it is new, or a callback has set its rate since
            group["joined"] = (group["lr"], self._done)
        lr, since = group["joined"]
        leader = self._configured[0]["initial_lr"]
        start = self.rate(leader, since)
        group["lr"] = group["scheduled_lr"] = lr * self.rate(leader, done) / start if start else lr

    @override
    def take_back(self, done: int) -> None:
        for group, configured in zip(self.optimizer.param_groups, self._configured, strict=False):
            group.update(configured)
        self._done = done
        self.step(done)

    def change_rate(self, old: float, new: float) -> None:
        """Let the groups whose rate after the warm-up was `old` have `new`, others in proportion."""
        for configured in self._configured:
            lr = configured["initial_lr"]
            configured["initial_lr"] = new if lr == old else lr * new / old


class GroupSchedule(CountedSchedule):
    """Every group's rate falls exponentially from its ``lr`` to its ``final_lr`` over the run.

    Args:
        optimizer: whose groups have a ``final_lr``.
        steps: of the whole run.
    """

    def __init__(self, optimizer: Optimizer, steps: int) -> None:
        self.optimizer, self.steps = optimizer, steps
        self._configured = [(group["lr"], group["final_lr"]) for group in optimizer.param_groups]

    @override
    def step(self, done: int) -> None:
        share = min(1.0, done / self.steps)
        for group, (first, last) in zip(self.optimizer.param_groups, self._configured, strict=True):
            group["lr"] = first * (last / first) ** share

    @override
    def take_back(self, done: int) -> None:
        self.step(done)
