"""UP-Diff (arXiv 2407.11578): urban prediction by latent diffusion."""

from zoo.models.up_diff.autoencoder import (
    IdentityAutoencoder,
    KLAutoencoder,
    LatentSpread,
    latent_spread,
)
from zoo.models.up_diff.entries import up_diff_levir, up_diff_sysu, up_diff_tiny
from zoo.models.up_diff.fuser import GatedCrossAttention
from zoo.models.up_diff.layout import InputBranch, LayoutEncoder, LayoutProjection
from zoo.models.up_diff.network import Condition, UpDiff
from zoo.models.up_diff.noise import NoiseSchedule
from zoo.models.up_diff.sampling import build_sampler, denoise, sample

__all__ = [
    "Condition",
    "GatedCrossAttention",
    "IdentityAutoencoder",
    "InputBranch",
    "KLAutoencoder",
    "LatentSpread",
    "LayoutEncoder",
    "LayoutProjection",
    "NoiseSchedule",
    "UpDiff",
    "build_sampler",
    "denoise",
    "latent_spread",
    "sample",
    "up_diff_levir",
    "up_diff_sysu",
    "up_diff_tiny",
]
