"""The loss with which UP-Diff (arXiv 2407.11578) trains its autoencoder: squared error and LPIPS.

Axes: N images, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import nn
from torch.nn import functional as F

from lightning_modules.perceptual import SMALLEST, perceptual_network

if TYPE_CHECKING:
    from torch import Tensor


class AutoencoderLoss(nn.Module):
    """``mse + LPIPS`` of images and what an autoencoder makes of them; neither KL term nor discriminator.

    Args:
        perceptual: ``"lpips"`` by VGG-16, as published, or ``"none"``.

    Raises:
        ValueError: another choice.
        FileNotFoundError: the weights of VGG-16 are not on this machine.
    """

    def __init__(self, perceptual: Literal["lpips", "none"] = "lpips") -> None:
        super().__init__()
        if perceptual not in ("lpips", "none"):
            raise ValueError(f"perceptual must be 'lpips' or 'none', got {perceptual!r}")
        self.perceptual = perceptual
        # in a list, so that neither checkpoints nor optimisers take the backbone for a part of the task
        self._networks = [perceptual_network("vgg")] if perceptual == "lpips" else []

    def forward(self, autoencoder: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """``loss``, ``mse`` and, where it is asked for, ``lpips``, each a mean over the batch.

        Args:
            autoencoder: ``[N, 3, H, W]`` -> ``[N, 3, H, W]``, such as `KLAutoencoder`.
            images: ``[N, 3, H, W]`` in [-1, 1].

        Raises:
            ValueError: the images are too small for LPIPS.
        """
        made: Tensor = autoencoder(images)
        mse = F.mse_loss(made, images)
        if not self._networks:
            return {"loss": mse, "mse": mse}
        if min(images.shape[-2:]) < (least := SMALLEST["vgg"]):
            size = f"{images.shape[-2]} x {images.shape[-1]}"
            raise ValueError(f"LPIPS needs images of at least {least} pixels a side, got {size}")
        network = self._networks[0].to(images.device)
        distance: Tensor = network(made, images).mean()
        return {"loss": mse + distance, "mse": mse, "lpips": distance}
