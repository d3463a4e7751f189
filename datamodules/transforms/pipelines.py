"""Transforms built from plain values, seeded per sample.

Small images go through `TensorPipeline`, which treats a whole uint8 batch at once; large ones
through `ImagePipeline`, which is timm's ``create_transform``. torchvision's batched transforms
draw one set of parameters for the whole batch, so cropping, flipping and Cutout with a draw per
sample are written out here; policies, erasing and resizing are timm's and torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.loading.data import image_array
from datamodules.loading.random import Keys, integers, kept_generators, seed_everything, uniforms

Interpolation = Literal["bilinear", "bicubic", "nearest"]
_POLICIES = {"cifar10": "CIFAR10", "cifar100": "CIFAR10", "imagenet": "IMAGENET", "svhn": "SVHN"}
_GREY = [128, 128, 128]  # uncovered corners, as in the policy file that the CIFAR recipes pass on
_TIMM_POLICIES = ("rand", "augmix", "original", "originalr", "v0", "v0r", "3a", "3aa")

# slots of the per-sample random numbers; a fixed number each, so that switching one augmentation
# on or off leaves the draws of the others as they were
_CROP_Y, _CROP_X, _FLIP, _CUT_Y, _CUT_X, _POLICY, _ERASE = range(7)


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
) -> Callable[[Image.Image], Image.Image]:
    """Build an augmentation policy on RGB images.

    Args:
        name: see `Augmentation.auto_augment`.
        size: short side of the image in pixels; limits translations.
        mean: channel means in 0..1; timm's policies fill gaps with this colour.
        interpolation: of geometric operations; timm's own default picks one at random.
    """
    check_policy(name)
    if name in _POLICIES or name == "trivial":
        from torchvision.transforms import v2

        policy: Callable[[Image.Image], Image.Image] = (
            v2.TrivialAugmentWide()
            if name == "trivial"
            else v2.AutoAugment(v2.AutoAugmentPolicy[_POLICIES[name]], fill=_GREY)
        )
        return policy
    from timm.data.auto_augment import (
        augment_and_mix_transform,
        auto_augment_transform,
        rand_augment_transform,
    )

    rgb = tuple(mean) * 3 if len(mean) == 1 else tuple(mean)
    # the same parameters as timm.data.transforms_factory.transforms_imagenet_train
    params: dict[str, Any] = {
        "translate_const": int(size * 0.45),
        "img_mean": tuple(min(255, round(255 * m)) for m in rgb),
    }
    if interpolation is not None:
        params["interpolation"] = {"nearest": 0, "bilinear": 2, "bicubic": 3}[interpolation]
    if name.startswith("rand"):
        return rand_augment_transform(name, params)  # type: ignore[no-any-return]
    if name.startswith("augmix"):
        params["translate_pct"] = 0.3
        return augment_and_mix_transform(name, params)  # type: ignore[no-any-return]
    return auto_augment_transform(name, params)  # type: ignore[no-any-return]


def draw_keys(count: int) -> Keys:
    """Draw sample keys from torch's global generator, for transforms called by hand."""
    return torch.randint(0, 2**62, (count,)).numpy().astype(np.uint64)


def shifted_crops(images: Tensor, keys: Keys, padding: int, flip: float) -> Tensor:
    """Pad with zeros, crop at a random place, flip some; one draw per sample.

    Args:
        images: uint8 ``[N, C, H, W]``.
        keys: random keys ``[N]``.
        padding: pixels on each side.
        flip: probability of a horizontal flip.

    Returns:
        uint8 ``[N, C, H, W]``.
    """
    n, chans, height, width = images.shape
    source = images.numpy()
    if padding:
        padded = np.zeros((n, chans, height + 2 * padding, width + 2 * padding), dtype=np.uint8)
        padded[:, :, padding:-padding, padding:-padding] = source
        tops = integers(keys, _CROP_Y, 2 * padding + 1)
        lefts = integers(keys, _CROP_X, 2 * padding + 1)
    else:
        padded, tops, lefts = source, np.zeros(n, np.int64), np.zeros(n, np.int64)
    flipped = uniforms(keys, _FLIP) < flip
    out = np.empty_like(source)
    for i, (top, left, mirror) in enumerate(
        zip(tops.tolist(), lefts.tolist(), flipped.tolist(), strict=True)
    ):
        window = padded[i, :, top : top + height, left : left + width]
        out[i] = window[:, :, ::-1] if mirror else window
    return torch.from_numpy(out)


def cut_out(images: Tensor, keys: Keys, side: int) -> Tensor:
    """Set one square of every image to 0, the mean after normalising; in place.

    The centre lies anywhere in the image and the square is clipped at the border, as in the
    code of Cutout (arXiv 1708.04552).

    Args:
        images: float ``[N, C, H, W]``.
        keys: random keys ``[N]``.
        side: side of the square in pixels.
    """
    height, width = images.shape[-2:]

    def covered(slot: int, extent: int) -> Tensor:
        centre = torch.from_numpy(integers(keys, slot, extent))[:, None]
        place = torch.arange(extent)
        # side // 2 on either side of the centre, the upper end open, like the original
        return (place >= centre - side // 2) & (place < centre + side // 2)

    square = covered(_CUT_Y, height)[:, None, :, None] & covered(_CUT_X, width)[:, None, None, :]
    return images.masked_fill_(square, 0.0)


class TensorPipeline:
    """uint8 ``[N, C, H, W]`` to float32 ``[N, C, H', W']``: the whole batch at once.

    Order: resize, random crop, flip, policy, scale to 0..1, normalise, Cutout, random erasing. It
    is the order of the recipes for CIFAR. Event frames ``[N, T, C, H, W]`` are only made float.

    Args:
        size: (height, width) to resize to; ``None`` keeps the size.
        mean: channel means in 0..1.
        std: channel standard deviations.
        augmentation: random changes; ``None`` for evaluation.
        interpolation: of resizing.
        events: input holds event counts ``[N, T, C, H, W]``.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int] | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        augmentation: Augmentation | None = None,
        interpolation: Interpolation = "bicubic",
        events: bool = False,
    ) -> None:
        self.size = size
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.augmentation = augmentation
        self.interpolation = interpolation
        self.events = events
        # (x / 255 - mean) / std as one multiplication and one addition
        self._scale = torch.tensor([1 / (255 * s) for s in std])[:, None, None]
        self._shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])[:, None, None]
        self._policy: Callable[[Image.Image], Image.Image] | None = None
        self._eraser: Any = None
        if augmentation is not None and augmentation.random_erasing:
            from timm.data.random_erasing import RandomErasing

            self._eraser = RandomErasing(
                augmentation.random_erasing, mode=augmentation.erasing_mode, device="cpu"
            )

    def __call__(self, images: Tensor, keys: Keys | None = None) -> Tensor:
        """Transform a batch (or one image ``[C, H, W]``).

        Args:
            images: uint8 ``[N, C, H, W]``.
            keys: one random key per image; drawn from torch's global generator if missing.
        """
        if self.events:
            return images.to(torch.float32)
        if images.ndim == 3:
            return self(images[None], keys)[0]
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != len(self.mean):
            raise ValueError(
                f"expected uint8 [N, C={len(self.mean)}, H, W], got {images.dtype} {list(images.shape)}"
            )
        if self.size is not None and tuple(images.shape[-2:]) != self.size:
            images = self._resize(images)
        augmentation = self.augmentation
        if augmentation is None:
            return images * self._scale + self._shift
        keys = draw_keys(len(images)) if keys is None else keys
        if augmentation.crop_padding or augmentation.flip:
            images = shifted_crops(images, keys, augmentation.crop_padding, augmentation.flip)
        if augmentation.auto_augment is not None:
            images = self._apply_policy(images, keys, augmentation.auto_augment)
        out = images * self._scale + self._shift
        if augmentation.cutout:
            out = cut_out(out, keys, augmentation.cutout)
        return out if self._eraser is None else self._erase(out, keys)

    def _resize(self, images: Tensor) -> Tensor:
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import resize

        mode = InterpolationMode(self.interpolation)
        resized: Tensor = resize(images, list(self.size or ()), mode, antialias=True)
        return resized

    def _apply_policy(self, images: Tensor, keys: Keys, name: str) -> Tensor:
        if self._policy is None:
            side = min(images.shape[-2:])
            self._policy = build_policy(name, side, self.mean, self.interpolation)
        chans = images.shape[1]
        out = torch.empty_like(images)
        salted = integers(keys, _POLICY, 2**53).tolist()
        with kept_generators():
            for i, key in enumerate(salted):
                seed_everything(key)
                # policies are defined on RGB; grey images take a detour
                pixels = images[i].expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
                image = self._policy(Image.fromarray(pixels))
                changed = image if chans == 3 else image.convert("L")
                out[i] = torch.from_numpy(image_array(changed).copy())
        return out

    def _erase(self, images: Tensor, keys: Keys) -> Tensor:
        salted = integers(keys, _ERASE, 2**53).tolist()
        with kept_generators():
            for i, key in enumerate(salted):
                seed_everything(key)
                images[i] = self._eraser(images[i])
        return images

    def steps(self) -> list[str]:
        """Return the steps in the order in which they run, in words."""
        if self.events:
            return ["event counts to float32"]
        a = self.augmentation or Augmentation()
        words = [
            self.size and f"resize {self.size[0]}x{self.size[1]} ({self.interpolation})",
            a.crop_padding and f"random crop, padding {a.crop_padding}",
            a.flip and f"horizontal flip, p={a.flip}",
            a.auto_augment and f"auto augment {a.auto_augment}",
            f"normalise mean {_short(self.mean)} std {_short(self.std)}",
            a.cutout and f"cutout {a.cutout}",
            a.random_erasing and f"random erasing, p={a.random_erasing} ({a.erasing_mode})",
        ]
        return [word for word in words if word]

    def __repr__(self) -> str:
        return " -> ".join(self.steps())


class ImagePipeline:
    """One decoded image to float32 ``[C, H, W]``, by timm's ``create_transform``.

    Training: random resized crop, flip, policy or colour jitter, normalise, random erasing, and
    Cutout. Evaluation: resize the short side to ``floor(size / crop_pct)``, centre crop, normalise.

    Args:
        size: (height, width) of the result.
        mean: channel means in 0..1.
        std: channel standard deviations.
        augmentation: random changes; ``None`` for evaluation. ``crop_padding`` has no meaning
            here and must be 0.
        scale: area of the random crop relative to the image, (least, most).
        ratio: aspect ratio of the random crop, (least, most).
        crop_pct: part of the short side that evaluation keeps.
        color_jitter: strength of brightness, contrast and saturation; off when a policy is set.
        interpolation: of resizing.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation | None = None,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        crop_pct: float = 0.875,
        color_jitter: float = 0.0,
        interpolation: Interpolation = "bicubic",
    ) -> None:
        from timm.data.transforms_factory import create_transform
        from torchvision.transforms import Compose

        self.mean, self.std = tuple(mean), tuple(std)
        self.augmentation = augmentation
        a = augmentation or Augmentation()
        if a.crop_padding:
            raise ValueError("crop_padding is for small images; here scale and ratio crop")
        common: dict[str, Any] = {
            "input_size": (len(self.mean), *size),
            "interpolation": interpolation,
            "mean": self.mean,
            "std": self.std,
        }
        if augmentation is None:
            self.stages: list[Any] = [create_transform(**common, crop_pct=crop_pct)]
            return
        first, second, last = create_transform(
            **common,
            is_training=True,
            scale=scale,
            ratio=ratio,
            hflip=a.flip,
            # a policy switches it off in timm, too; None leaves the step out
            color_jitter=None if a.auto_augment or not color_jitter else color_jitter,
            re_prob=a.random_erasing,
            re_mode=a.erasing_mode,
            separate=True,
        )
        if a.auto_augment:
            policy = build_policy(a.auto_augment, min(size), self.mean, interpolation)
            second = Compose([_rgb_detour(policy) if len(self.mean) == 1 else policy])
        self.stages = [first, second, last]

    def __call__(self, image: Image.Image, key: int | None = None) -> Tensor:
        """Transform one image; `key` is drawn from torch's global generator if missing."""
        if self.augmentation is None:
            return self._run(image)
        key = int(draw_keys(1)[0]) if key is None else key
        with kept_generators():
            seed_everything(key)
            out = self._run(image)
        if self.augmentation.cutout:
            keys = np.array([key], dtype=np.uint64)
            cut_out(out[None], keys, self.augmentation.cutout)
        return out

    def _run(self, image: Image.Image) -> Tensor:
        value: Any = image
        for stage in self.stages:
            value = stage(value)
        tensor: Tensor = value
        return tensor

    def steps(self) -> list[str]:
        """Return the steps in the order in which they run, in words."""
        a = self.augmentation or Augmentation()
        words = []
        for place, stage in enumerate(self.stages):
            if place == 1 and a.auto_augment:
                words.append(f"auto augment {a.auto_augment}")  # timm's repr fills a page
            else:
                words += [str(step) for step in stage.transforms]
        return [*words, f"cutout {a.cutout}"] if a.cutout else words

    def __repr__(self) -> str:
        return " -> ".join(self.steps())


class _rgb_detour:  # noqa: N801  reads like the function it stands for; a class so that it pickles
    """Apply a policy that is defined on RGB to a grey image."""

    def __init__(self, policy: Callable[[Image.Image], Image.Image]) -> None:
        self.policy = policy

    def __call__(self, image: Image.Image) -> Image.Image:
        return self.policy(image.convert("RGB")).convert("L")


def _short(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"
