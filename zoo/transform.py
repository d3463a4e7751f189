"""How a network wants its images, as one callable for plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image
    from torch import Tensor, nn


@dataclass(frozen=True)
class Transform:
    """A PIL image to float32 ``[C, H, W]``, as the weights were evaluated on.

    Attributes:
        input_size: (C, H, W) of the result.
        mean: channel means in 0..1 that are taken away.
        std: channel standard deviations that are divided by.
        interpolation: of resizing.
        crop_pct: part of the short side that the centre crop keeps.
    """

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    steps: Callable[[Image.Image], Tensor] = field(repr=False, compare=False)

    def __call__(self, image: Image.Image) -> Tensor:
        """Resize, crop and normalise one image, in grey or colour as the network has 1 or 3 channels.

        Raises:
            TypeError: not an image of PIL.
        """
        from PIL import Image

        if not isinstance(image, Image.Image):
            raise TypeError(
                f"expected a PIL image, got {type(image).__name__}; PIL.Image.open(PATH) reads a file, and"
                " torchvision.transforms.functional.to_pil_image takes tensors [C, H, W] and arrays [H, W, C]"
            )
        return self.steps(image.convert("L" if self.input_size[0] == 1 else "RGB"))


def transform(model: nn.Module) -> Transform:
    """The preprocessing that the weights of a network want, from what they came with.

    >>> import zoo
    >>> zoo.transform(zoo.load("spiking_cnn_nano")).input_size
    (1, 28, 28)

    Args:
        model: what `zoo.load` gave, a network of timm, or any that has timm's ``pretrained_cfg``.

    Returns:
        A map of PIL images to ``[C, H, W]``; ``torch.stack`` makes a batch of several. Images of more than 8
        bits a channel are for `datamodules.images`, since Pillow clips them.

    Raises:
        TypeError: not a network.
        ValueError: the network does not say how its images are prepared, or takes no images of 1 or 3
            channels.
    """
    from timm.data import create_transform, resolve_data_config
    from torch import nn

    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a network, got {model!r}; zoo.load(NAME) gives one")
    cfg: dict[str, Any] = dict(getattr(model, "pretrained_cfg", None) or {})
    if not cfg:
        raise ValueError(
            f"{type(model).__name__} does not say how its images are prepared: it has no pretrained_cfg, as"
            " networks of zoo.load, zoo.create and timm have"
        )
    data: dict[str, Any] = resolve_data_config({}, pretrained_cfg=cfg)
    channels, height, width = data["input_size"] = _input_size(model, data["input_size"])
    if channels not in (1, 3):
        raise ValueError(f"this network takes {channels} channels, so images, which have 1 or 3, do not fit")
    for key in ("mean", "std"):
        if len(data[key]) != channels:  # as timm makes one channel of the weights of three
            data[key] = (sum(data[key]) / len(data[key]),) * channels
    return Transform(
        input_size=(channels, height, width),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=str(data["interpolation"]),
        crop_pct=float(data["crop_pct"]),
        steps=create_transform(**data, is_training=False),
    )


def _input_size(model: nn.Module, told: tuple[int, int, int]) -> tuple[int, int, int]:
    """``(C, H, W)`` that a network takes; those of timm tell the ones of their weights."""
    channels, height, width = (int(n) for n in told)
    arguments = getattr(model, "model_args", None) or {}
    channels = int(arguments.get("in_chans") or channels)
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if size is not None:
        height, width = (int(n) for n in size)
    return channels, height, width
