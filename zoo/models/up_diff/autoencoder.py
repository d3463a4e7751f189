"""Between images and latents: the KL autoencoder of Stable Diffusion, or none at all.

Axes: N images, C H W channels and pixels, h w pixels of the latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from zoo.models.up_diff.extra import require

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

SCALE = 0.18215  # of the latents of Stable Diffusion 1: their standard deviation is about 1 / SCALE


class IdentityAutoencoder(nn.Module):
    """The image is its latent."""

    latent_channels = 3
    reduction = 1
    scale = 1.0

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``[N, 3, H, W]``, as it is."""
        return images

    def decode(self, latents: Tensor) -> Tensor:
        """``[N, 3, H, W]``, as it is."""
        return latents


class KLAutoencoder(nn.Module):
    """Autoencoder with a Gaussian posterior (arXiv 2112.10752), as diffusers builds it.

    Args:
        channels: of each resolution; every one but the last halves the image.
        latent_channels: C of the latent.
        blocks: residual blocks of each resolution.
        groups: of all group norms.

    Attributes:
        reduction: pixels of the image a side of a pixel of the latent.
        scale: factor of the latents that a diffusion model sees.
    """

    scale = SCALE

    def __init__(
        self,
        channels: Sequence[int] = (128, 256, 512, 512),
        latent_channels: int = 4,
        blocks: int = 2,
        groups: int = 32,
    ) -> None:
        super().__init__()
        require("diffusers")
        from diffusers import AutoencoderKL

        self.latent_channels, self.reduction = latent_channels, 2 ** (len(channels) - 1)
        self.network: Any = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            block_out_channels=tuple(channels),
            layers_per_block=blocks,
            latent_channels=latent_channels,
            norm_num_groups=groups,
        )

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A sample of the posterior, not scaled: ``[N, 3, H, W]`` -> ``[N, C, h, w]``."""
        posterior = self.network.encode(images).latent_dist
        mean: Tensor = posterior.mean
        where = generator.device if generator is not None else mean.device
        noise = torch.randn(mean.shape, generator=generator, device=where, dtype=mean.dtype)
        drawn: Tensor = mean + posterior.std * noise.to(mean.device)
        return drawn

    def decode(self, latents: Tensor) -> Tensor:
        """``[N, C, h, w]`` -> ``[N, 3, H, W]``."""
        images: Tensor = self.network.decode(latents).sample
        return images

    def forward(self, images: Tensor) -> Tensor:
        """Images through the latent and back, ``[N, 3, H, W]``; for its own training."""
        return self.decode(self.encode(images))


@dataclass(frozen=True)
class LatentSpread:
    """How far latents scatter.

    Attributes:
        std: their standard deviation as the diffusion model sees them.
        images: how many were looked at.
    """

    std: float
    images: int

    @property
    def sound(self) -> bool:
        """Whether noise of standard deviation 1 suits them: between a half and two."""
        return 0.5 <= self.std <= 2.0


@torch.no_grad()
def latent_spread(model: Any, batches: Iterable[Tensor]) -> LatentSpread:
    """The standard deviation of the latents of images.

    A freshly trained autoencoder without a KL term may have any; `UpDiff.rescale_latents` brings it to 1.

    Args:
        model: an `UpDiff`.
        batches: images ``[N, 3, H, W]`` in [-1, 1].

    Raises:
        ValueError: there is no image.
    """
    count, images, total, squares = 0, 0, 0.0, 0.0
    for batch in batches:
        latents = model.encode(batch).double()
        count, images = count + latents.numel(), images + len(batch)
        total, squares = total + float(latents.sum()), squares + float(latents.square().sum())
    if not count:
        raise ValueError("the spread of the latents needs at least one image")
    mean = total / count
    return LatentSpread(std=max(0.0, squares / count - mean**2) ** 0.5, images=images)
