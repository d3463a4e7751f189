"""Settings of the trainer that this machine cannot serve, refused by their names before anything is built."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry

from cli.errors import CommandError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

REACHED = {"gpu": torch.accelerator.is_available, "cuda": torch.cuda.is_available}
OFTEN = "auto, ddp, fsdp, deepspeed"  # of some thirty names


def check_trainer(trainer: Any) -> None:
    """Stop where the trainer could not be built, or would fail in its first loop.

    Args:
        trainer: what was parsed for the trainer.

    Raises:
        CommandError: names the setting, its value, and what would do.
    """
    _check_accelerator(trainer.accelerator)
    _check_devices(trainer.devices, on_cpus=trainer.accelerator == "cpu")
    _check_name("strategy", trainer.strategy, StrategyRegistry.available_strategies(), OFTEN)
    every = trainer.get("check_val_every_n_epoch")
    if every is not None and every < 1:
        raise CommandError(
            f"trainer.check_val_every_n_epoch must be at least 1, got {every}; --trainer.limit_val_batches 0"
            " leaves validation out"
        )


def _check_accelerator(name: Any) -> None:
    asked = str(name)
    if asked in REACHED and not REACHED[asked]():
        raise CommandError(
            f"trainer.accelerator is {asked}, but PyTorch {torch.__version__} reaches no GPU here; leave"
            " it out, and what there is is taken (or: cpu)"
        )
    names = ("gpu", *AcceleratorRegistry.available_accelerators())
    _check_name("accelerator", name, names, "auto, cpu, gpu")


def _check_devices(devices: Any, *, on_cpus: bool) -> None:
    if str(devices) in ("0", "[]"):
        raise CommandError(f"trainer.devices must be at least 1, or auto, got {devices}")
    most = max(8, 4 * (os.cpu_count() or 1))
    if on_cpus and str(devices).isdecimal() and int(devices) > most:
        raise CommandError(
            f"trainer.devices: {devices} asks for {devices} processes on {os.cpu_count()} cores;"
            f" at most {most} make sense"
        )


def _check_name(key: str, value: Any, known: Iterable[str], often: str) -> None:
    names = ("auto", *known)
    if isinstance(value, str) and value not in names:
        hint = did_you_mean(value, names)
        raise CommandError(f"trainer.{key} must be one of {often}, ..., got '{value}'{hint}")
