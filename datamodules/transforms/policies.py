"""Augmentation policies of torchvision and timm by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from PIL import Image

Interpolation = Literal["bilinear", "bicubic", "nearest"]
Policy = Callable[[Image.Image], Image.Image]
_POLICIES = {"cifar10": "CIFAR10", "cifar100": "CIFAR10", "imagenet": "IMAGENET", "svhn": "SVHN"}
_GREY = [128, 128, 128]  # uncovered corners, as in the policy file that the CIFAR recipes pass on
_TIMM_POLICIES = ("rand", "augmix", "original", "originalr", "v0", "v0r", "3a", "3aa")


def check_policy(name: str) -> None:
    """Raise ValueError unless `name` is a policy that `build_policy` knows."""
    head = name.split("-")[0]
    if name in _POLICIES or name == "trivial" or head in _TIMM_POLICIES:
        return
    raise ValueError(
        f"unknown auto_augment {name!r}; known: {', '.join(_POLICIES)}, trivial,"
        " or a timm string such as 'rand-m9-mstd0.5-inc1'"
    )


def build_policy(
    name: str, size: int, mean: Sequence[float], interpolation: Interpolation | None = None
) -> Policy:
    """Build an augmentation policy on RGB images.

    Args:
        name: see `Augmentation.auto_augment`.
        size: short side of the image in pixels; limits translations.
        mean: channel means in 0..1; timm's policies fill gaps with this colour.
        interpolation: of geometric operations; timm's own default picks one at random.
    """
    check_policy(name)
    if name == "trivial" or name in _POLICIES:
        return _torchvision_policy(name)
    return _timm_policy(name, size, mean, interpolation)


def _torchvision_policy(name: str) -> Policy:
    from torchvision.transforms import v2

    if name == "trivial":
        trivial: Policy = v2.TrivialAugmentWide()
        return trivial
    table: Policy = v2.AutoAugment(v2.AutoAugmentPolicy[_POLICIES[name]], fill=_GREY)
    return table


def _timm_policy(name: str, size: int, mean: Sequence[float], interpolation: Interpolation | None) -> Policy:
    from timm.data import auto_augment

    rgb = tuple(mean) * 3 if len(mean) == 1 else tuple(mean)
    # the same parameters as timm.data.transforms_factory.transforms_imagenet_train
    params: dict[str, Any] = {
        "translate_const": int(size * 0.45),
        "img_mean": tuple(min(255, round(255 * m)) for m in rgb),
    }
    if interpolation is not None:
        params["interpolation"] = {"nearest": 0, "bilinear": 2, "bicubic": 3}[interpolation]
    policy: Policy
    if name.startswith("rand"):
        policy = auto_augment.rand_augment_transform(name, params)
    elif name.startswith("augmix"):
        policy = auto_augment.augment_and_mix_transform(name, {**params, "translate_pct": 0.3})
    else:
        policy = auto_augment.auto_augment_transform(name, params)
    return policy


class RGBDetour:
    """Apply a policy that is defined on RGB to a grey image; a class so that it pickles."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def __call__(self, image: Image.Image) -> Image.Image:
        """Change one image; grey in, grey out."""
        return self.policy(image.convert("RGB")).convert("L")
