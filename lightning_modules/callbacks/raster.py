"""Draws the spikes of one test sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from typing_extensions import override

from lightning_modules import figures, record
from spiking import FiringRateMonitor

if TYPE_CHECKING:
    from collections.abc import Sequence


class RasterFigure(pl.Callback):
    """After a test, draws which neurons fire when, for one sample: ``figures/raster.png``.

    Args:
        sample: number of the sample in the first test batch.
        layers: paths of neurons to draw; up to four spread over the network if missing.
    """

    def __init__(self, sample: int = 0, layers: Sequence[str] | None = None) -> None:
        if sample < 0:
            raise ValueError(f"sample must be 0 or more, got {sample}")
        self.sample = sample
        self.layers = list(layers or ())

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        loaders: Any = trainer.test_dataloaders
        loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
        x, *_ = next(iter(loader))
        if self.sample >= len(x):
            raise ValueError(f"sample {self.sample} is not in the first test batch of {len(x)}")
        one = x[self.sample : self.sample + 1].to(pl_module.device)
        with (
            FiringRateMonitor(pl_module.get_submodule("model"), raster=self.layers or True) as monitor,
            torch.no_grad(),
        ):
            pl_module(one)
        spikes = monitor.rasters()
        names = self.layers or figures.spread(list(spikes), 4)
        shown = {name: figures.thinned(spikes[name]) for name in names}
        image = one[0] if one.dim() == 4 else one[0].mean(dim=0)
        image = image if len(image) in (1, 3) else image.mean(dim=0, keepdim=True)
        folder = record.test_folder(trainer, pl_module) / "figures"
        figures.save(figures.raster(shown, image), folder / "raster.png", svg=True)
