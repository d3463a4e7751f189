"""The transform of large images: one at a time, by timm's ``create_transform``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from datamodules.loading.decode import eight_bit
from datamodules.loading.random import kept_generators, seed_everything
from datamodules.transforms.augmentation import Augmentation
from datamodules.transforms.batched import cut_out
from datamodules.transforms.draws import draw_keys
from datamodules.transforms.policies import Interpolation, RGBDetour, build_policy


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
        # a policy switches it off in timm, too; None leaves the step out
        common["color_jitter"] = None if a.auto_augment or not color_jitter else color_jitter
        first, second, last = create_transform(
            **common,
            is_training=True,
            scale=scale,
            ratio=ratio,
            hflip=a.flip,
            re_prob=a.random_erasing,
            re_mode=a.erasing_mode,
            separate=True,
        )
        if a.auto_augment:
            policy = build_policy(a.auto_augment, min(size), self.mean, interpolation)
            second = Compose([RGBDetour(policy) if len(self.mean) == 1 else policy])
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
        value: Any = eight_bit(image, len(self.mean))
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
