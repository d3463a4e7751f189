"""Logs how often neurons fire, and draws it layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning.pytorch as pl
from typing_extensions import override

from lightning_modules import figures, record
from spiking import FiringRateMonitor, Neuron

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class FiringRate(pl.Callback):
    """Logs ``val/firing_rate`` and ``test/firing_rate``: spikes per neuron and step.

    Sums are taken over all batches and processes. After a test, ``figures/firing_rates.png`` in the run's
    folder shows every layer.

    Args:
        optional: pass over networks without neurons instead of refusing them, so that one configuration can
            train a spiking network and its ANN.

    Attributes:
        rates: rates of the last evaluation by path of the neuron.
    """

    def __init__(self, optional: bool = False) -> None:
        self.optional = optional
        self.rates: dict[str, float] = {}
        self._monitor: FiringRateMonitor | None = None

    def _begin(self, task: pl.LightningModule) -> None:
        model = task.get_submodule("model")
        if not any(isinstance(module, Neuron) for module in model.modules()):
            if self.optional:
                return
            raise ValueError(
                f"{model._get_name()} contains no spiking neurons, so it has no firing rate; for an ANN leave"
                " out the callback FiringRate, or say optional: true; a spiking network has neurons of"
                " `spiking`, such as spiking.LIF (those of other libraries are not known)"
            )
        self._monitor = FiringRateMonitor(model)
        self._monitor.__enter__()

    def _end(self, trainer: pl.Trainer, task: pl.LightningModule, stage: str) -> None:
        if self._monitor is None:
            return
        monitor, self._monitor = self._monitor, None
        monitor.__exit__(None, None, None)
        if not monitor.counts().numel():
            return
        reduce = _sum(trainer)
        self.rates = monitor.rates(reduce)
        task.log(f"{stage}/firing_rate", monitor.rate(reduce))

    @override
    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin(pl_module)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end(trainer, pl_module, "val")

    @override
    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin(pl_module)

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end(trainer, pl_module, "test")
        if self.rates and trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            folder = record.test_folder(trainer, pl_module) / "figures"
            subject = record.subject(trainer, pl_module)
            seen = record.planned(trainer, subject["of"])
            on = record.split_text({**subject, "samples": seen})
            figures.save(figures.firing_rates(self.rates, on), folder / "firing_rates.png", svg=True)

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if self._monitor is not None:
            self._monitor.__exit__(None, None, None)
            self._monitor = None


def _sum(trainer: pl.Trainer) -> Callable[[Tensor], Tensor]:
    def reduce(counts: Tensor) -> Tensor:
        summed: Tensor = trainer.strategy.reduce(counts.to(trainer.strategy.root_device), reduce_op="sum")
        return summed

    return reduce
