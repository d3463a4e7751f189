"""FID and LPIPS of generated images over a whole test, as far as their backbones are on this machine.

Axes: N samples, H W pixels; images lie in [-1, 1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from lightning_modules.perceptual import SMALLEST, frechet_distance, perceptual_network

if TYPE_CHECKING:
    from torch import Tensor, nn


class BackboneScores:
    """Gathers images, and what could not be measured.

    LPIPS is that of AlexNet, the network that its authors advise for comparing.

    Args:
        side: pixels a side of the images.

    Attributes:
        missing: why a score is not measured, by its name.
    """

    def __init__(self, side: int) -> None:
        self.missing: dict[str, str] = {}
        self._fid: Any = None
        self._lpips: nn.Module | None = None
        try:
            self._fid = frechet_distance()
        except (FileNotFoundError, ModuleNotFoundError) as error:
            self.missing["fid"] = str(error)
        if side < (least := SMALLEST["alex"]):
            self.missing["lpips"] = f"LPIPS needs images of at least {least} pixels a side, these have {side}"
            return
        try:
            self._lpips = perceptual_network("alex")
        except FileNotFoundError as error:
            self.missing["lpips"] = str(error)

    @torch.no_grad()
    def update(self, made: Tensor, true: Tensor) -> dict[str, Tensor]:
        """Take a batch of generated and true images, ``[N, 3, H, W]``; returns its ``lpips``, a mean."""
        if self._fid is not None:
            self._fid.to(made.device)
            for images, real in ((made, False), (true, True)):
                self._fid.update(((images.clamp(-1, 1) + 1) * 127.5).round().byte(), real=real)
        if self._lpips is None:
            return {}
        distances: Tensor = self._lpips.to(made.device)(made.clamp(-1, 1), true.clamp(-1, 1))
        return {"lpips": distances.mean()}

    def compute(self) -> dict[str, Tensor]:
        """``fid`` of all images so far, of all processes."""
        if self._fid is None:
            return {}
        try:
            return {"fid": self._fid.compute()}
        except RuntimeError as error:  # fewer than two images have no covariance
            self.missing["fid"] = str(error)
            return {}
