"""What entries expect of their inputs: size, number of classes, and the statistics that normalise pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The inputs of an entry; pixels lie in 0..1 before they are normalised.

    Attributes:
        input_size: ``(C, H, W)``.
        num_classes: K.
        mean: of each channel.
        std: standard deviation of each channel.
        crop_pct: side of the central crop over the side of the resized image, in evaluation.
    """

    input_size: tuple[int, int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float = 1.0

    def statistics(self) -> dict[str, Any]:
        """``mean``, ``std`` and ``crop_pct`` as fields of timm's ``pretrained_cfg``."""
        return {"mean": self.mean, "std": self.std, "crop_pct": self.crop_pct}


IMAGENET = Inputs(
    input_size=(3, 224, 224),
    num_classes=1000,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    crop_pct=0.875,
)
CIFAR10 = Inputs(
    input_size=(3, 32, 32),
    num_classes=10,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)
# what many codes for CIFAR-10 divide by: the mean over images of each image's own deviation
CIFAR10_BY_IMAGE = Inputs(
    input_size=(3, 32, 32),
    num_classes=10,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
)
GREY_DIGITS = Inputs(input_size=(1, 28, 28), num_classes=10, mean=(0.1307,), std=(0.3081,))


def event_frames(channels: int, side: int, num_classes: int) -> Inputs:
    """Square frames of events, which are not normalised."""
    return Inputs(
        input_size=(channels, side, side),
        num_classes=num_classes,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )
