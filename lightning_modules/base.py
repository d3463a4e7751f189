"""What all tasks share: the optimiser, the schedule, and a loss that must stay finite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
import torch
from timm.optim import create_optimizer_v2, list_optimizers
from torch.optim.lr_scheduler import LambdaLR

import spiking

if TYPE_CHECKING:
    from torch import Tensor, nn

Schedule = Literal["cosine", "constant"]


class BaseTask(pl.LightningModule):
    """Optimiser and learning-rate schedule from plain values.

    Args:
        optimizer: a name of ``timm.optim``: ``"sgd"`` (Nesterov), ``"momentum"``, ``"adamw"``, ``"lamb"``...
        lr: learning rate after the warm-up.
        weight_decay: of everything but biases, norms and the learnt scalars of neurons.
        momentum: of optimisers that have one.
        decay_all: decay biases, norms and neuron parameters, too, as some recipes do.
        schedule: ``"cosine"`` to ``min_lr`` over the whole run, or ``"constant"``.
        warmup_epochs: linear warm-up from ``warmup_lr``.
        warmup_lr: learning rate of the first step.
        min_lr: learning rate at the end of the cosine.
        cosine_after_warmup: whether the cosine begins when the warm-up ends; otherwise it counts from the
            run's first step and the warm-up hides its beginning, as in SpikingResformer's code.
        schedule_interval: ``"step"`` moves the rate at every step, ``"epoch"`` at every epoch.
    """

    def __init__(
        self,
        *,
        optimizer: str = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.9,
        decay_all: bool = False,
        schedule: Schedule = "cosine",
        warmup_epochs: float = 0.0,
        warmup_lr: float = 0.0,
        min_lr: float = 0.0,
        cosine_after_warmup: bool = True,
        schedule_interval: Literal["step", "epoch"] = "step",
    ) -> None:
        super().__init__()
        for label, value, low in (
            ("lr", lr, 0.0),
            ("weight_decay", weight_decay, 0.0),
            ("warmup_epochs", warmup_epochs, 0.0),
            ("warmup_lr", warmup_lr, 0.0),
            ("min_lr", min_lr, 0.0),
        ):
            if not value >= low:
                raise ValueError(f"{label} must be at least {low:g}, got {value!r}")
        if optimizer.lower() not in list_optimizers():
            raise ValueError(
                f"unknown optimizer {optimizer!r}; timm has {', '.join(list_optimizers()[:12])}, ..."
            )
        if schedule not in ("cosine", "constant"):
            raise ValueError(f"schedule must be 'cosine' or 'constant', got {schedule!r}")
        self.optimizer_name = optimizer.lower()
        self.lr, self.weight_decay, self.momentum = lr, weight_decay, momentum
        self.decay_all = decay_all
        self.schedule, self.schedule_interval = schedule, schedule_interval
        self.warmup_epochs, self.warmup_lr, self.min_lr = warmup_epochs, warmup_lr, min_lr
        self.cosine_after_warmup = cosine_after_warmup

    @property
    def title(self) -> str:
        """What is trained, in a few words."""
        return str(self.hparams.get("model", type(self).__name__))

    @property
    def starts_trained(self) -> bool:
        """Whether the first weights come from elsewhere, so that a test before training says something."""
        return False

    # -- optimiser -----------------------------------------------------------------------------

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters with and without weight decay."""
        spared = set() if self.decay_all else spared_from_decay(self)
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                groups[name not in spared].append(parameter)
        decays = {True: self.weight_decay, False: 0.0}
        return [{"params": found, "weight_decay": decays[key]} for key, found in groups.items() if found]

    def configure_optimizers(self) -> Any:
        """The optimiser, and a schedule over the length that the trainer knows."""
        optimizer = create_optimizer_v2(
            self.parameter_groups(), opt=self.optimizer_name, lr=self.lr, momentum=self.momentum
        )
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            raise ValueError("the schedule needs an end: set trainer.max_epochs or trainer.max_steps")
        epochs = self.trainer.max_epochs or 0
        steps = max(1, int(total))
        per_epoch = max(1, steps // epochs) if epochs > 0 else 1
        by_epoch = self.schedule_interval == "epoch"
        warmup = int(self.warmup_epochs * per_epoch)

        def factor(step: int) -> float:
            at = step // per_epoch * per_epoch if by_epoch else step
            return self.rate(at, steps, warmup) / self.lr if self.lr else 0.0

        scheduler = LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def rate(self, step: int, steps: int, warmup: int) -> float:
        """Learning rate at a step."""
        if step < warmup:
            return self.warmup_lr + (self.lr - self.warmup_lr) * step / warmup
        if self.schedule == "constant":
            return self.lr
        start = warmup if self.cosine_after_warmup else 0
        done = min(1.0, (step - start) / max(1, steps - start))
        wave = 0.5 * (1.0 + float(torch.cos(torch.tensor(torch.pi * done, dtype=torch.float64))))
        return self.min_lr + (self.lr - self.min_lr) * wave

    # -- checks --------------------------------------------------------------------------------

    def require_finite(self, loss: Tensor) -> None:
        """Stop a run whose loss is NaN or infinite, instead of training on with broken weights.

        Raises:
            FloatingPointError: names the step and the learning rate.
        """
        if not bool(loss.detach().isfinite()):
            rates = ", ".join(f"{g['lr']:.3g}" for g in self.trainer.optimizers[0].param_groups)
            raise FloatingPointError(
                f"the loss is {float(loss)} at step {self.global_step} (learning rate {rates}); lower"
                " model.init_args.lr, clip gradients with trainer.gradient_clip_val, or look at the data"
                " with spiking.check_finite"
            )


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
