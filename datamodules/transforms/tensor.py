"""The transform of small images: whole uint8 batches at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from datamodules.loading.decode import as_bytes, image_array
from datamodules.loading.random import Keys, integers, kept_generators, seed_everything
from datamodules.transforms import draws
from datamodules.transforms.augmentation import Augmentation
from datamodules.transforms.batched import cut_out, shifted_crops
from datamodules.transforms.policies import Interpolation, Policy, build_policy


class TensorPipeline:
    """Images ``[N, C, H, W]`` to float32 ``[N, C, H', W']``: the whole batch at once.

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
        self._policy: Policy | None = None
        self._eraser: Any = None
        if augmentation is not None and augmentation.random_erasing:
            from timm.data.random_erasing import RandomErasing

            self._eraser = RandomErasing(
                augmentation.random_erasing, mode=augmentation.erasing_mode, device="cpu"
            )

    def __call__(self, images: Tensor, keys: Keys | None = None) -> Tensor:
        """Transform a batch (or one image ``[C, H, W]``).

        Args:
            images: uint8 ``[N, C, H, W]``, or what `as_bytes` makes uint8 of.
            keys: one random key per image; drawn from torch's global generator if missing.

        Raises:
            ValueError: another number of axes or channels, or values without a known scale.
        """
        if self.events:
            return images.to(torch.float32)
        if images.ndim == 3:
            return self(images[None], keys)[0]
        if images.ndim != 4 or images.shape[1] != len(self.mean):
            raise ValueError(
                f"expected images [N, C={len(self.mean)}, H, W], got {images.dtype} {list(images.shape)}"
            )
        images = as_bytes(images)
        if self.size is not None and tuple(images.shape[-2:]) != self.size:
            images = self._resize(images)
        augmentation = self.augmentation
        if augmentation is None:
            return images * self._scale + self._shift
        keys = draws.draw_keys(len(images)) if keys is None else keys
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
        salted = integers(keys, draws.POLICY, 2**53).tolist()
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
        salted = integers(keys, draws.ERASE, 2**53).tolist()
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


def _short(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"
