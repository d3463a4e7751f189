"""Operations and energy as torchmetrics, so that they reduce over processes like any metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric

from spiking.measure.energy import E_AC, E_MAC

if TYPE_CHECKING:
    from spiking.measure.counter import OperationCounter


class _PerSample(Metric):
    """Sums of an `OperationCounter`, divided by the samples."""

    is_differentiable = False
    full_state_update = False
    sums: Tensor  # [samples, macs, sops, ann_macs]

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.add_state("sums", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, counter: OperationCounter) -> None:
        """Add what ``counter`` has counted since its last ``reset``; it is left as it is."""
        self.sums = self.sums + counter.totals().to(self.sums.device)

    def _mean(self, index: int) -> Tensor:
        return (self.sums[index] / self.sums[0]).float()


class SynapticOperations(_PerSample):
    """Synaptic operations of one sample over all time steps."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """SOPs, 0-d; NaN before any sample."""
        return self._mean(2)


class EnergyMetric(_PerSample):
    """Energy of one sample in mJ: 4.6 pJ a MAC, 0.9 pJ a synaptic operation (45 nm), or other constants.

    Args:
        ann: charge the same network as an ANN instead, every layer dense and once.
        pj_per_mac: energy of a multiply-accumulate.
        pj_per_sop: energy of a synaptic operation.
        **arguments: of ``torchmetrics.Metric``.
    """

    higher_is_better = False

    def __init__(
        self, ann: bool = False, pj_per_mac: float = E_MAC, pj_per_sop: float = E_AC, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.ann = ann
        self.pj_per_mac, self.pj_per_sop = pj_per_mac, pj_per_sop

    def compute(self) -> Tensor:
        """Energy in mJ, 0-d; NaN before any sample."""
        if self.ann:
            return self._mean(3) * (self.pj_per_mac * 1e-9)
        return (self._mean(1) * self.pj_per_mac + self._mean(2) * self.pj_per_sop) * 1e-9
