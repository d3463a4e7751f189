"""Histograms of what a site sees, in memory that does not grow with the number of images."""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 2048


class Histogram:
    """Counts of values of at least 0, in bins over ``[0, range)``; the range doubles when it must.

    Doubling merges neighbouring bins, so that nothing is counted anew. Negative values count as 0.

    Args:
        channels: how many histograms are kept, 1 or C.
        bins: of each.

    Attributes:
        counts: ``[channels, bins]`` float64.
        largest: largest value of each channel, ``[channels]``.
    """

    def __init__(self, channels: int = 1, bins: int = BINS) -> None:
        self.channels, self.bins = channels, bins
        self.counts = torch.zeros(channels, bins, dtype=torch.float64)
        self.largest = torch.zeros(channels)
        self.range = 0.0

    def add(self, x: Tensor, axis: int = 1) -> None:
        """Count ``x``; its axis ``axis`` is the channel axis if there are several channels."""
        x = x.detach().float()
        rows = x.movedim(axis, 0).flatten(1) if self.channels > 1 else x.flatten().unsqueeze(0)
        top = rows.amax(dim=1).clamp(min=0.0).cpu()
        self.largest = torch.maximum(self.largest, top)
        self._widen(float(top.max()))
        if not self.range:
            self.counts[:, 0] += rows.shape[1]
            return
        index = (rows * (self.bins / self.range)).clamp_(0, self.bins - 1).long()
        index += torch.arange(self.channels, device=x.device).unsqueeze(1) * self.bins
        counted = torch.bincount(index.flatten(), minlength=self.channels * self.bins)
        self.counts += counted.view(self.channels, self.bins).to("cpu", torch.float64)

    def _widen(self, top: float) -> None:
        if not self.range:
            self.range = top * 1.0000001
        while self.range and top >= self.range:
            merged = self.counts.view(self.channels, self.bins // 2, 2).sum(dim=2)
            self.counts = torch.cat([merged, torch.zeros_like(merged)], dim=1)
            self.range *= 2.0

    def centres(self) -> Tensor:
        """Middle of each bin, ``[bins]`` float64; zero for the first bin."""
        width = self.range / self.bins
        centres = (torch.arange(self.bins, dtype=torch.float64) + 0.5) * width
        centres[0] = 0.0  # what a ReLU cuts off is there
        return centres

    def quantile(self, share: float) -> Tensor:
        """The value below which a share of all values lies, ``[channels]``; 1 gives the largest."""
        if share >= 1.0:
            return self.largest.clone()
        reached = self.counts.cumsum(dim=1) / self.counts.sum(dim=1, keepdim=True).clamp(min=1.0)
        index = (reached < share).sum(dim=1)
        edge = (index.double() + 1.0) * (self.range / self.bins)
        return torch.minimum(edge.float(), self.largest)

    def best_threshold(self, levels: int, candidates: int = 160) -> Tensor:
        """The threshold whose ``levels`` equal steps represent the values with the least squared error.

        Args:
            levels: steps between 0 and the threshold, rounded to the nearest.
            candidates: thresholds that are tried, up to the largest value of each channel.

        Returns:
            ``[channels]``; 0 where a channel never rises above 0.
        """
        centres = self.centres()
        best = torch.full((self.channels,), float("inf"), dtype=torch.float64)
        chosen = self.largest.double()
        for k in range(1, candidates + 1):
            theta = self.largest.double() * (k / candidates)
            scale = (theta / levels).clamp(min=1e-30).unsqueeze(1)
            coded = (centres / scale + 0.5).floor().clamp(max=levels) * scale
            error = (self.counts * (coded - centres) ** 2).sum(dim=1)
            better = error < best
            best, chosen = torch.where(better, error, best), torch.where(better, theta, chosen)
        return chosen.float()
