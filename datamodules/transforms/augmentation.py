"""Which random changes training images get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datamodules.transforms.policies import check_policy


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of training images; everything off by default.

    Attributes:
        crop_padding: zero padding on each side before a random crop to the old size, in pixels.
        flip: probability of a horizontal flip.
        auto_augment: ``cifar10``, ``imagenet`` or ``svhn`` (AutoAugment, arXiv 1805.09501, tables
            of torchvision), ``trivial`` (TrivialAugment, arXiv 2103.10158), or a string of timm
            such as ``rand-m7-n1-mstd0.5-inc1`` (RandAugment, arXiv 1909.13719).
        cutout: side of one square set to the mean, anywhere in the image and clipped at its
            border, in pixels (Cutout, arXiv 1708.04552); 0 is off.
        random_erasing: probability of erasing a random rectangle (arXiv 1708.04896), as in timm.
        erasing_mode: what fills it: ``pixel`` noise, one ``rand`` colour, or ``const`` mean.
    """

    crop_padding: int = 0
    flip: float = 0.0
    auto_augment: str | None = None
    cutout: int = 0
    random_erasing: float = 0.0
    erasing_mode: Literal["pixel", "rand", "const"] = "pixel"

    def __post_init__(self) -> None:
        for name in ("crop_padding", "cutout"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more pixels, got {getattr(self, name)}")
        for name in ("flip", "random_erasing"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a probability, 0 to 1, got {getattr(self, name)}")
        if self.auto_augment is not None:
            check_policy(self.auto_augment)
