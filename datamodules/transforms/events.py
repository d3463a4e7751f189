"""The transform of event frames."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.loading.random import Keys, integers, uniforms
from datamodules.transforms import draws
from datamodules.transforms.augmentation import Augmentation
from datamodules.transforms.batched import cut_out, shifted_crops


class EventPipeline:
    """Counts ``[N, T, 2, H, W]`` -> float32 ``[N, T, C, H', W']``; one draw for all T of a sample.

    Order: resize (bilinear, antialiased), random crop, flip, one of three changes, third channel. Counts are
    not normalised.

    Args:
        size: (height, width) to resize to; None keeps the size.
        augmentation: of it ``crop_padding`` and ``flip``; None for evaluation.
        one_of_three: in training, either roll by up to a third of the frame in both directions, or rotate
            by up to 30 degrees, or cut out a square of a third (recipe of SpikingResformer, 2403.14302).
        sum_channel: add the sum of the two polarities as a third channel.
    """

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        augmentation: Augmentation | None = None,
        one_of_three: bool = False,
        sum_channel: bool = False,
    ) -> None:
        self.size = size
        self.augmentation = augmentation
        self.one_of_three = one_of_three and augmentation is not None
        self.sum_channel = sum_channel

    def __call__(self, frames: Tensor, keys: Keys | None = None) -> Tensor:
        """Transform a batch.

        Args:
            frames: unsigned integers ``[N, T, 2, H, W]``.
            keys: one random key per sample; drawn from torch's global generator if missing.

        Returns:
            float32 ``[N, T, C, H', W']``.
        """
        N, T, C = frames.shape[:3]
        flat = frames.flatten(1, 2)
        a = self.augmentation
        keys = draws.draw_keys(N) if keys is None and a is not None else keys
        if a is not None and keys is not None and (a.crop_padding or a.flip):
            flat = shifted_crops(flat, keys, a.crop_padding, a.flip)
        x = flat.to(torch.float32)
        if self.size is not None and tuple(x.shape[-2:]) != self.size:
            x = torch.nn.functional.interpolate(x, self.size, mode="bilinear", antialias=True)
        if self.one_of_three and keys is not None:
            x = change(x, keys)
        x = x.reshape(N, T, C, *x.shape[-2:])
        return torch.cat([x, x.sum(dim=2, keepdim=True)], dim=2) if self.sum_channel else x

    def steps(self) -> list[str]:
        """Return the steps in the order in which they run, in words."""
        a = self.augmentation or Augmentation()
        words = [
            a.crop_padding and f"random crop, padding {a.crop_padding}",
            a.flip and f"horizontal flip, p={a.flip}",
            "event counts to float32",
            self.size and f"resize {self.size[0]}x{self.size[1]} (bilinear)",
            self.one_of_three and "roll, rotation or cutout",
            self.sum_channel and "third channel: sum of the polarities",
        ]
        return [word for word in words if word]

    def __repr__(self) -> str:
        return " -> ".join(self.steps())


def change(x: Tensor, keys: Keys) -> Tensor:
    """Roll, rotate or cut out, one of them for every sample.

    Args:
        x: float ``[N, C, H, W]``.
        keys: random keys ``[N]``.
    """
    from torchvision.transforms.v2.functional import rotate

    height = x.shape[-2]
    reach = height // 3
    which = integers(keys, draws.CHANGE, 3)
    down, right = (integers(keys, slot, 2 * reach + 1) - reach for slot in (draws.ROLL_Y, draws.ROLL_X))
    angle = 60.0 * uniforms(keys, draws.ANGLE) - 30.0
    x = x.clone()
    for i, kind in enumerate(which.tolist()):
        if kind == 0:
            x[i] = x[i].roll((int(down[i]), int(right[i])), dims=(-2, -1))
        elif kind == 1:
            x[i] = rotate(x[i], float(angle[i]))
        else:
            cut_out(x[i : i + 1], keys[i : i + 1], reach)
    return x
