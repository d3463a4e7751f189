"""Discrete Diffusion Adaptation: an autoregressive model learns to draw all codes of an image at once."""

from zoo.models.emu3_5.dida.layout import (
    NoisyCopies,
    Roles,
    clean_places,
    inside_images,
    joined,
    noisy_copies,
    noisy_tokens,
)
from zoo.models.emu3_5.dida.mask import Places, block_mask, dense_mask, mask_rule, sees
from zoo.models.emu3_5.dida.path import (
    MetricPath,
    MixturePath,
    NoisePath,
    jump,
    jump_probability,
    off_place,
    time_grid,
    training_times,
)
from zoo.models.emu3_5.dida.sampler import Denoising, denoise

__all__ = [
    "Denoising",
    "MetricPath",
    "MixturePath",
    "NoisePath",
    "NoisyCopies",
    "Places",
    "Roles",
    "block_mask",
    "clean_places",
    "denoise",
    "dense_mask",
    "inside_images",
    "joined",
    "jump",
    "jump_probability",
    "mask_rule",
    "noisy_copies",
    "noisy_tokens",
    "off_place",
    "sees",
    "time_grid",
    "training_times",
]
