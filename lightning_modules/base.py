"""What all tasks share: the optimiser, the schedule, and a loss that must stay finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.data import extract_batch_size
from timm.optim import create_optimizer_v2, list_optimizers
from typing_extensions import override

from lightning_modules import optimizer_state
from lightning_modules.optimizer import CountedSchedule, Schedule, StepSchedule, decay_groups
from spiking.arguments import did_you_mean
from spiking.measure.finite import damaged, listed, weight_norm
from spiking.own import accepted_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor


FIRST_WEIGHTS = ("pretrained", "weights", "hybrid")  # of model_args: where a run's network begins


class BaseTask(pl.LightningModule):
    """Optimiser and learning-rate schedule from plain values.

    Args:
        optimizer: a name of ``timm.optim``: ``"sgd"`` (Nesterov), ``"momentum"``, ``"adamw"``, ``"lamb"``...
        lr: learning rate after the warm-up.
        weight_decay: of everything but biases, norms and the learnt scalars of neurons.
        momentum: of optimisers that have one.
        decay_all: decay biases, norms and neuron parameters, too, as some recipes do.
        schedule: ``"cosine"`` to ``min_lr`` over the whole run, or ``"constant"``.
        warmup_epochs: linear warm-up from ``warmup_lr``; an epoch is a pass over the training data, whether
            the run ends by epochs or by steps.
        warmup_lr: learning rate of the first step.
        min_lr: learning rate at the end of the cosine.
        cosine_after_warmup: whether the cosine begins when the warm-up ends; otherwise it counts from the
            run's first step and the warm-up hides its beginning, as in SpikingResformer's code.
        schedule_interval: ``"step"`` moves the rate at every step, ``"epoch"`` at every epoch.

    Attributes:
        method: how the task trains, as model cards state it.
        paper: arXiv id of the method.
        monitor: name of the logged value that tells the best checkpoint.
        mode: ``"max"`` or ``"min"``: which of its values is the best.
        output: what ``predict`` writes if the user names nothing; a folder if it has no suffix.
        begins_with: arguments beside ``model_args`` that name files or runs from which weights are taken
            when a run begins; see `restored_arguments`.
        curves: logged values that a run draws in the end, by panel; around one of which ``NAME_std`` is
            logged, too, a band shows it.
        curves_over: what they are drawn against; over epochs, what was logged within one is averaged.
    """

    method: ClassVar[str] = ""
    paper: ClassVar[str | None] = None
    monitor: ClassVar[str] = "val/loss"
    mode: ClassVar[Literal["min", "max"]] = "min"
    output: ClassVar[str] = "predictions.csv"
    begins_with: ClassVar[tuple[str, ...]] = ()
    curves: ClassVar[Mapping[str, Sequence[str]]] = {
        "loss": ("train/loss", "val/loss"),
        "accuracy": ("train/acc1", "val/acc1"),
    }
    curves_over: ClassVar[Literal["epoch", "step"]] = "epoch"

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
        known = [str(name) for name in list_optimizers()]
        if optimizer.lower() not in known:
            hint = did_you_mean(optimizer, known)
            often = ", ".join(name for name in ("sgd", "adam", "adamw", "lamb", "lion") if name in known)
            raise ValueError(f"unknown optimizer {optimizer!r}; {hint}timm has {often} and others")
        if schedule not in ("cosine", "constant"):
            raise ValueError(f"schedule must be 'cosine' or 'constant', got {schedule!r}")
        self.optimizer_name = optimizer.lower()
        self.lr, self.weight_decay, self.momentum = lr, weight_decay, momentum
        self.decay_all = decay_all
        self.schedule, self.schedule_interval = schedule, schedule_interval
        self.warmup_epochs, self.warmup_lr, self.min_lr = warmup_epochs, warmup_lr, min_lr
        self.cosine_after_warmup = cosine_after_warmup
        self._scheduled_lr = lr
        self._gradients: dict[str, Tensor] = {}

    def trained_by(self) -> tuple[str, str | None]:
        """The method as cards state it, and its paper."""
        return self.method or type(self).__name__, self.paper

    @property
    def title(self) -> str:
        """What is trained, in a few words."""
        told = self.hparams.get("model", type(self).__name__)
        return str(told["class_path"] if isinstance(told, dict) else told)

    @property
    def starts_trained(self) -> bool:
        """Whether ``model_args`` ask for weights, so that a test before training says something."""
        return any((self.hparams.get("model_args") or {}).get(key) for key in FIRST_WEIGHTS)

    def prediction_callbacks(
        self,
        output: Path,
        *,
        class_names: Sequence[str] = (),
        top_k: int = 5,
        explain: Literal["tokens"] | None = None,
    ) -> list[pl.Callback]:
        """What writes the outputs of ``predict``.

        Args:
            output: the file or folder to write.
            class_names: labels by class number.
            top_k: labels in each line of a table.
            explain: what else is to be shown.

        Raises:
            ValueError: the task predicts nothing that could be written, or an option makes no sense for it.
        """
        raise ValueError(f"{type(self).__name__} has no predictions to write")

    # -- optimiser -----------------------------------------------------------------------------

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters with and without weight decay, as ``torch.optim`` takes them."""
        return decay_groups(self, self.weight_decay, self.decay_all)

    def optimizer_options(self) -> dict[str, Any]:
        """Further arguments of the optimiser that belong to the method, such as AdamW's betas."""
        return {}

    def samples_in(self, batch: Any) -> int:
        """How many samples of the data a batch holds."""
        return extract_batch_size(batch)

    def match_preprocessing(self, data: Any, checkpoint: Path | None, training: bool) -> None:
        """Let the data prepare its samples as trained weights want them, or warn; nothing to do by default.

        Args:
            data: the data module, before its ``setup``.
            checkpoint: what is about to be loaded, if anything.
            training: whether the weights are to be trained, on whatever the data bring.
        """

    @override
    def configure_optimizers(self) -> Any:
        optimizer = create_optimizer_v2(
            self.parameter_groups(),
            opt=self.optimizer_name,
            lr=self.lr,
            momentum=self.momentum,
            **self.optimizer_options(),
        )
        total = self.trainer.estimated_stepping_batches
        if total == float("inf") and self.schedule != "constant":
            raise ValueError("the schedule needs an end: set trainer.max_epochs or trainer.max_steps")
        counted = self.warmup_epochs or self.schedule_interval == "epoch"
        per_epoch = self.steps_per_epoch() if counted else 1
        scheduler = StepSchedule(
            optimizer,
            schedule=self.schedule,
            steps=1 if total == float("inf") else max(1, int(total)),
            warmup=round(self.warmup_epochs * per_epoch),
            warmup_lr=self.warmup_lr,
            min_lr=self.min_lr,
            cosine_after_warmup=self.cosine_after_warmup,
            hold=per_epoch if self.schedule_interval == "epoch" else 1,
        )
        self._scheduled_lr = self.lr
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch, counted from the batches of this process, whatever ends the run.

        Raises:
            ValueError: the data do not tell how long an epoch is.
        """
        if self.trainer.train_dataloader is None:  # not asked for yet where max_steps alone ends the run
            self.trainer.fit_loop.setup_data()
        batches = self.trainer.num_training_batches
        if batches == float("inf"):
            raise ValueError(
                "what is counted in epochs (warmup_epochs, schedule_interval, ...) needs to know how long one"
                " is, and the data do not tell; set trainer.limit_train_batches to a number of batches"
            )
        return max(1, math.ceil(batches / self.trainer.accumulate_grad_batches))

    @override
    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if isinstance(scheduler, CountedSchedule):
            scheduler.step(self.global_step)
        else:
            super().lr_scheduler_step(scheduler, metric)

    @override
    def on_train_start(self) -> None:
        """Take what was configured, or found since, in the place of what a checkpoint brought."""
        for config in self.trainer.lr_scheduler_configs:
            schedule: Any = config.scheduler
            if isinstance(schedule, StepSchedule) and self.lr != self._scheduled_lr:
                schedule.change_rate(self._scheduled_lr, self.lr)  # as `LearningRateFinder` sets it
                self._scheduled_lr = self.lr
            if isinstance(schedule, CountedSchedule):
                schedule.take_back(self.global_step)
        optimizer_state.put_gradients(self, self._gradients)
        self._gradients = {}

    # -- checkpoints ---------------------------------------------------------------------------

    @classmethod
    def restored_arguments(cls, arguments: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments that build the task for a checkpoint, which brings all weights itself.

        Nothing in them names the places of a run's first weights, which may be gone by then. Where files
        told sizes that the configuration does not, the checkpoint does.

        >>> BaseTask.restored_arguments({"model_args": {"weights": "runs/first", "layers": 2}}, {})
        {'model_args': {'layers': 2}}

        Args:
            arguments: as they are configured.
            recorded: those that the checkpoint holds; they win where `begins_with` names one.
        """
        built = dict(arguments)
        if isinstance(given := built.get("model_args"), Mapping):
            kept = {key: value for key, value in given.items() if key not in FIRST_WEIGHTS}
            told = recorded.get("model_args") if len(kept) < len(given) else None
            built["model_args"] = {**(told or {}), **kept}
        return built | {key: recorded.get(key) for key in cls.begins_with if key in built}

    def recorded_beginning(self) -> dict[str, Any]:
        """What checkpoints say in the place of the arguments `begins_with`: plain values, no places."""
        return {}

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what resuming needs beside Lightning's own: whose state the optimiser's is, and gradients.

        Where the run's first weights came from is left out: the checkpoint holds its own.

        Raises:
            FloatingPointError: the weights are damaged; no file is written, and earlier ones stay.
        """
        self._require_sound()
        if (hyper := checkpoint.get("hyper_parameters")) is not None:
            taken = accepted_arguments(
                type(self)
            )  # the command line adds facts of the data that other tasks take
            told = {key: value for key, value in hyper.items() if key in taken or key.startswith("_")}
            checkpoint["hyper_parameters"] = self.restored_arguments(told, self.recorded_beginning())
        if "optimizer_states" in checkpoint:
            checkpoint["optimizer"] = self.optimizer_name
            checkpoint["optimizer_parameters"] = optimizer_state.names(self)
            checkpoint["gradients"] = optimizer_state.accumulated_gradients(self)

    def match_state(self, state: Mapping[str, Tensor]) -> None:
        """Let parameters whose number changes in training have that of a checkpoint; none by default.

        Args:
            state: the checkpoint's, about to be compared and loaded.
        """

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Fit the optimiser's state to the groups of now.

        Raises:
            ValueError: it is that of another optimiser.
        """
        self.match_state(checkpoint.get("state_dict") or {})
        if self._trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        optimizer_state.refuse_other(checkpoint, self.optimizer_name)
        optimizer_state.regroup(checkpoint, self, self.parameter_groups())
        self._gradients = checkpoint.get("gradients") or {}

    # -- checks --------------------------------------------------------------------------------

    def require_finite(self, loss: Tensor) -> None:
        """Stop a run whose loss or weights are NaN or infinite, instead of training on with broken weights.

        The loss alone does not tell: neurons turn NaN into silence, and the loss of silence is finite. Loss
        and weights are looked at together, so a GPU is waited for once. Gradients of 16-bit training that
        overflow are no fault: its scaler skips the step.

        Raises:
            FloatingPointError: names the weights, the step and the learning rate.
        """
        norm = weight_norm(self)
        if bool((loss.detach() + norm.to(loss.device)).isfinite()):
            return
        self._require_sound()
        if not bool(loss.detach().isfinite()):
            raise FloatingPointError(
                f"the loss is {float(loss)} {self._where()}; lower model.init_args.lr, clip gradients with"
                " trainer.gradient_clip_val, or look at the data with spiking.check_finite"
            )

    @override
    def on_train_end(self) -> None:
        """Look at what the last step made of the weights."""
        self._require_sound()

    def _require_sound(self) -> None:
        wrong = damaged(self.state_dict().items(), self)
        if wrong:
            raise FloatingPointError(
                f"the weights are damaged {self._where()}: {listed(wrong)}; lower model.init_args.lr, clip"
                " gradients with trainer.gradient_clip_val, or look at the data with spiking.check_finite"
            )

    def _where(self) -> str:
        if self._trainer is None or not self.trainer.optimizers:
            return "at the start"
        rates = ", ".join(f"{g['lr']:.3g}" for g in self.trainer.optimizers[0].param_groups)
        return f"at step {self.global_step} (learning rate {rates})"
