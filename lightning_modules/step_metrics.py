"""Metrics of torchmetrics after every time step."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torchmetrics import MetricCollection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor
    from torchmetrics import Metric


class StepMetrics(nn.Module):
    """Several metrics for every t: of the mean of the first t outputs.

    Args:
        metrics: by name; they are copied for each step.
        read: what the metrics take, made of a mean of outputs ``[B, ...]``; the mean itself if missing.
    """

    def __init__(self, metrics: Mapping[str, Metric], read: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        named: dict[str, Metric | MetricCollection] = {**metrics}
        self.metrics = MetricCollection(named, compute_groups=False)
        self.read = read
        self.at = nn.ModuleList()

    def update(self, outputs: Tensor, target: Tensor) -> None:
        """Count a batch: ``outputs [T, B, ...]``, ``target [B, ...]``."""
        while len(self.at) < len(outputs):
            self.at.append(self.metrics.clone())
        total = torch.zeros_like(outputs[0], dtype=torch.float32)
        for t, (metrics, output) in enumerate(zip(self._each(), outputs.detach(), strict=False), 1):
            total = total + output.float()
            metrics.update(total / t if self.read is None else self.read(total / t), target)

    def compute(self) -> list[dict[str, Tensor]]:
        """Values by name after each step, reduced over the processes; empty before any sample."""
        return [dict(metrics.compute()) for metrics in self._each()]

    def reset(self) -> None:
        """Forget all samples."""
        self.at = nn.ModuleList()

    def _each(self) -> list[MetricCollection]:
        return [cast("MetricCollection", metrics) for metrics in self.at]
