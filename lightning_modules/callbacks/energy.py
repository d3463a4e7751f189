"""Logs operations and energy of one sample, next to the same network as an ANN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from typing_extensions import override

from lightning_modules.metrics import summed
from spiking import EnergyReport, OperationCounter
from spiking.measure.metrics import EnergyMetric, SynapticOperations

if TYPE_CHECKING:
    from torchmetrics import Metric


class Energy(pl.Callback):
    """Logs ``test/sops``, ``test/energy_mj`` and ``test/ann_energy_mj``, means over samples.

    Energy takes 4.6 pJ a MAC and 0.9 pJ a synaptic operation (45 nm, Horowitz, ISSCC 2014). Where a paper has
    constants of its own, ``test/paper_energy_mj`` is the energy at those, so that its numbers compare.

    Args:
        batches: test batches that are counted, on every process; 0 counts all. Counting is exact and costs
            about another forward pass.
        paper_pj_per_mac: a paper's constant; with the next one, or neither.
        paper_pj_per_sop: the same for synaptic operations.

    Raises:
        ValueError: a negative number, or one of the constants without the other.

    Attributes:
        constants: the paper's, None without.
        report: operations of every layer, from the first process.
        samples: how many were counted, on all processes.
    """

    def __init__(
        self,
        batches: int = 4,
        paper_pj_per_mac: float | None = None,
        paper_pj_per_sop: float | None = None,
    ) -> None:
        if (paper_pj_per_mac is None) != (paper_pj_per_sop is None):
            raise ValueError("paper_pj_per_mac and paper_pj_per_sop are given together or not at all")
        self.constants: dict[str, float] | None = None
        if paper_pj_per_mac is not None and paper_pj_per_sop is not None:
            if min(paper_pj_per_mac, paper_pj_per_sop) < 0:
                raise ValueError("paper_pj_per_mac and paper_pj_per_sop must be 0 or more")
            self.constants = {"pj_per_mac": paper_pj_per_mac, "pj_per_sop": paper_pj_per_sop}
        if batches < 0:
            raise ValueError(f"batches must be 0 or more, got {batches}")
        self.batches = batches
        self.report: EnergyReport | None = None
        self.samples = 0
        self._counter: OperationCounter | None = None
        self._counting = False

    @override
    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._counter = OperationCounter(pl_module.get_submodule("model"))

    @override
    def on_test_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._counter is not None and (not self.batches or batch_idx < self.batches):
            self._counter.__enter__()
            self._counting = True

    @override
    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._stop()

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        counter, self._counter = self._counter, None
        self.samples = 0
        if counter is None or not counter.samples:
            return
        self.samples = summed(trainer, counter.samples)
        self.report = counter.report()
        wanted: dict[str, Metric] = {
            "sops": SynapticOperations(),
            "energy_mj": EnergyMetric(),
            "ann_energy_mj": EnergyMetric(ann=True),
        }
        if self.constants is not None:
            wanted["paper_energy_mj"] = EnergyMetric(False, **self.constants)
        for name, metric in wanted.items():
            metric.to(pl_module.device)
            metric.update(counter)
            pl_module.log(f"test/{name}", metric.compute())

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._counting and self._counter is not None:
            self._counter.__exit__(None, None, None)
            self._counting = False
