"""Images of any size as the fixed batches of a converted detector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from conversion.calibration.batches import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torchvision.models.detection import FCOS, RetinaNet

Size = tuple[int, int]  # (H, W)
CHUNK = 4  # images at a time of a plain list


def padded(images: list[Tensor], detector: FCOS | RetinaNet, size: Size) -> ImageList:
    """The batch that the detector makes of images, with more of the padding that it has itself."""
    transform = detector.transform
    batch = transform(images)[0]
    high, wide = batch.tensors.shape[-2:]
    if high > size[0] or wide > size[1]:
        raise ValueError(
            f"the detector resizes these images to a batch of (H, W) = {(high, wide)} (min_size ="
            f" {transform.min_size}, max_size = {transform.max_size}), but sizes are fixed in the converted"
            f" network, which takes up to {size}: convert it with image_size={(high, wide)} or more"
        )
    padding = (0, size[1] - wide, 0, size[0] - high)
    return ImageList(nn.functional.pad(batch.tensors, padding), batch.image_sizes)


def checked_images(images: Any) -> list[Tensor]:
    """Images that a transform can take."""
    if isinstance(images, Tensor) and images.dim() == 3:
        raise ValueError(
            f"expected a list of images [C, H, W], got one {tuple(images.shape)}; put it in a list"
        )
    checked = list(images)
    if not checked:
        raise ValueError("no images: expected a list of at least one tensor [C, H, W]")
    for image in checked:
        if not isinstance(image, Tensor) or not image.is_floating_point():
            got = image.dtype if isinstance(image, Tensor) else type(image).__name__
            raise TypeError(
                f"expected floating-point images [C, H, W] of values 0 to 1, got {got}"
                " (torchvision.transforms.v2.functional.to_dtype(image, scale=True) makes them)"
            )
        if image.dim() != 3 or not image.numel():
            raise ValueError(f"expected images [C, H, W], got one of shape {tuple(image.shape)}")
    return checked


class CalibrationImages:
    """Calibration images in batches, gone through as often as wanted.

    Args:
        source: images, or batches of them, alone or in front of their targets.
    """

    def __init__(self, source: Any) -> None:
        if isinstance(source, Tensor) and source.dim() != 4:
            raise CalibrationError(
                f"expected images [N, C, H, W] or a list of [C, H, W], got a tensor {tuple(source.shape)}"
            )
        try:
            batches = source if hasattr(source, "__len__") else list(source)
        except TypeError as error:
            raise CalibrationError(
                f"calibration must be images [C, H, W] or batches of them, got {type(source).__name__}"
            ) from error
        if not len(batches):
            raise CalibrationError("there is no calibration image; check the list or the loader")
        if (
            isinstance(batches, Tensor | list | tuple)
            and isinstance(batches[0], Tensor)
            and batches[0].dim() == 3
        ):
            batches = [list(batches[i : i + CHUNK]) for i in range(0, len(batches), CHUNK)]
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Tensor]]:
        for batch in self.batches:
            try:
                yield checked_images(_images_of(batch))
            except (TypeError, ValueError) as error:
                raise CalibrationError(f"in the calibration data: {error}") from error


def _images_of(batch: Any) -> Any:
    """The images of a batch, which may be one image, and may come in front of targets."""
    if isinstance(batch, Tensor):
        return batch if batch.dim() == 4 else [batch]
    if (
        isinstance(batch, list | tuple)
        and batch
        and not all(isinstance(p, Tensor) and p.dim() == 3 for p in batch)
    ):
        return _images_of(batch[0])
    return batch


class PaddedBatches:
    """Calibration images as the network gets them, ``[B, C, H, W]``."""

    def __init__(self, images: CalibrationImages, detector: FCOS | RetinaNet, size: Size) -> None:
        self.images, self.detector, self.size = images, detector, size

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.images:
            yield padded(batch, self.detector, self.size).tensors


def network_size(
    detector: FCOS | RetinaNet, images: CalibrationImages | None, given: Sequence[int] | None
) -> Size:
    """``(H, W)`` of the converted network: as asked for, or what the calibration images need."""
    unit = int(detector.transform.size_divisible)
    if given is not None:
        size = tuple(int(s) for s in given)
        if len(size) != 2 or any(s < 1 or s % unit for s in size):
            raise ValueError(f"image_size must be (H, W) in multiples of {unit}, got {tuple(given)}")
        return size[0], size[1]
    if images is None:
        raise ValueError("the size of the images is unknown; give calibration=IMAGES or image_size=(H, W)")
    found = [detector.transform(batch)[0].tensors.shape[-2:] for batch in images]
    return max(int(s[0]) for s in found), max(int(s[1]) for s in found)
