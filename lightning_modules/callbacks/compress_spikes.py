"""Keeps spikes as bits between the forward and the backward pass of a training step."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from spiking import compress_spikes


class CompressSpikes(pl.Callback):
    """Less memory in training, for any task and network: see `spiking.compress_spikes`.

    Gradients are the same to the bit. Unlike activation checkpointing it computes nothing twice, and goes
    along with it.
    """

    def __init__(self) -> None:
        self._block = ExitStack()

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._block.close()  # of a batch that was left out
        self._block.enter_context(compress_spikes())

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._block.close()

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._block.close()
