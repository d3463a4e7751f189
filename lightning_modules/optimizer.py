"""Which parameters decay, and how the learning rate moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from timm.optim import param_groups_weight_decay
from timm.scheduler import create_scheduler_v2

import spiking

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

Schedule = Literal["cosine", "constant"]


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


class StepSchedule:
    """A schedule of timm, counted in optimiser steps. It has no state.

    The rate depends on the number of steps alone, so that a run which goes on with another length or
    another rate takes these, and not those of its checkpoint, which timm's own ``state_dict`` holds.

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
        self.timm, _ = create_scheduler_v2(
            optimizer,
            schedule,
            num_epochs=max(1, steps - warmup) if cosine_after_warmup else steps,
            warmup_epochs=warmup,
            warmup_lr=warmup_lr,
            warmup_prefix=cosine_after_warmup,
            min_lr=min_lr,
            step_on_epochs=False,
            updates_per_epoch=1,  # all lengths are in steps
        )

    def step(self, done: int) -> None:
        """Set the rates after ``done`` optimiser steps."""
        self.timm.step_update(done // self.hold * self.hold)

    def state_dict(self) -> dict[str, Any]:
        """Empty, see above."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Pass over what a checkpoint holds."""
