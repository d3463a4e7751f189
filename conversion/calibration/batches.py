"""Calibration data: checked, counted, and gone through again as often as a method wants."""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING, Any

import torch
from rich.progress import track
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import nn

CHUNK = 32  # images at a time of a plain tensor


class CalibrationError(ValueError):
    """Calibration data that a model cannot be calibrated with; the message says what is wrong."""


class Batches:
    """Batches of images ``[B, C, H, W]`` from a tensor, a loader, or anything that can be iterated.

    Batches may be tensors or tuples, lists and mappings whose first entry is the images; labels are ignored.

    Args:
        source: the data. An iterator that can be gone through only once is kept in memory.
        cfg: preprocessing of the model in timm's words; mean and std tell which values to expect.
        progress: show a progress bar.
        model: what takes them. Data that are no images, other axes than four or integers, must run on it.

    Raises:
        CalibrationError: there is no image.
    """

    def __init__(
        self,
        source: Tensor | Iterable[Any],
        cfg: Mapping[str, Any] | None = None,
        progress: bool = True,
        model: nn.Module | None = None,
    ) -> None:
        self.model = model
        if isinstance(source, Tensor):
            if source.dim() < 2:
                raise CalibrationError(f"expected images [N, C, H, W], got a tensor {tuple(source.shape)}")
            source = list(torch.split(source, CHUNK))
        try:
            once = iter(source) is source
        except TypeError as error:
            raise CalibrationError(
                f"calibration must be images [N, C, H, W] or batches of them, got {type(source).__name__}"
            ) from error
        if once:
            source = list(source)
        self.source = source
        self.cfg = cfg or {}
        self.progress = progress
        self.shape: tuple[int, ...] | None = None
        self.images = 0
        self._counted = False
        self._channels = _channels(self.cfg, model)
        first = next(iter(self.source), None)
        if first is None:
            raise CalibrationError("the calibration data hold no image; check the loader and its filters")
        self.first = self._checked(images_of(first))
        self.shape = tuple(self.first.shape[1:])

    def through(self, label: str) -> Iterator[Tensor]:
        """All batches once, with a progress bar named ``label``."""
        total = len(self.source) if isinstance(self.source, Sized) else None
        batches: Iterable[Any] = self.source
        if self.progress:
            batches = track(batches, description=label, total=total, transient=True)
        seen = 0
        for batch in batches:
            images = self._checked(images_of(batch))
            seen += len(images)
            yield images
        if not self._counted:
            self.images, self._counted = seen, True

    def _checked(self, images: Tensor) -> Tensor:
        if not images.numel():
            raise CalibrationError(f"a calibration batch is empty: {tuple(images.shape)}")
        if self.shape is not None and tuple(images.shape[1:]) != self.shape:
            raise CalibrationError(
                f"calibration images have different shapes: {tuple(images.shape[1:])} after {self.shape};"
                " resize and crop them to one size"
            )
        if self.shape is None and (images.dim() != 4 or not images.is_floating_point()):
            self._check_runs(images)
        if self._channels and images.shape[1] not in self._channels:
            raise CalibrationError(
                f"the model takes C = {self._channels[-1]} channels, the calibration images have C ="
                f" {images.shape[1]} in {tuple(images.shape)}"
            )
        if self.shape is not None and images.is_floating_point() != self.first.is_floating_point():
            raise CalibrationError(f"a calibration batch is {images.dtype}, those before {self.first.dtype}")
        if not images.is_floating_point():
            return images  # tokens
        if not bool(images.isfinite().all()):
            raise CalibrationError("calibration images contain NaN or infinite values")
        low, high = (float(v) for v in images.aminmax())
        bound = self._bound()
        if images.dim() == 4 and max(abs(low), abs(high)) > bound:
            raise CalibrationError(
                f"calibration images range from {low:g} to {high:g}, far beyond what normalised ones reach"
                f" for this model (+-{bound:g}); they look unscaled: divide by 255 and normalise them"
            )
        return images

    def _check_runs(self, batch: Tensor) -> None:
        """Refuse what are no images unless the model takes it."""
        failure: Exception | str = "images are wanted"
        if self.model is not None and batch.dim() > 1:
            try:
                with torch.no_grad():
                    self.model(
                        to_model(batch[:2].repeat(2, *(1,) * (batch.dim() - 1)), reference_tensor(self.model))
                    )
            except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
                failure = error
            else:
                return
        if batch.dim() == 4:
            raise CalibrationError(
                f"calibration images are {batch.dtype}; scale and normalise them as for the model's own"
                " evaluation (timm.data.create_transform makes the transform of a timm model)"
            )
        raise CalibrationError(
            f"expected batches of images [B, C, H, W], got {batch.dim()} axes {tuple(batch.shape)}, on which"
            f" the source does not run: {failure}"
        )

    def _bound(self) -> float:
        """Ten times what the brightest and the darkest pixel become; unscaled images exceed it."""
        mean, std = self.cfg.get("mean"), self.cfg.get("std")
        if not mean or not std:
            return 50.0
        return 10.0 * float(max(max(m, 1.0 - m) / s for m, s in zip(mean, std, strict=True)))


def images_of(batch: Any) -> Tensor:
    """The images of a batch: the batch itself, or its first entry."""
    if isinstance(batch, Tensor):
        return batch
    if isinstance(batch, dict):
        for key in ("image", "images", "pixel_values", "input_ids", "inputs", "x"):
            if key in batch:
                return images_of(batch[key])
        batch = list(batch.values())
    if isinstance(batch, list | tuple) and batch:
        return images_of(batch[0])
    raise CalibrationError(f"a batch must be images or start with them, got {type(batch).__name__}")


def _channels(cfg: Mapping[str, Any], model: nn.Module | None) -> tuple[int, ...]:
    """C as the preprocessing has it, and as the first convolution has it.

    timm leaves the preprocessing as it was where a network is built for another number of channels; and a
    first convolution may see an image that has been folded.
    """
    size, named = cfg.get("input_size"), cfg.get("first_conv")
    if size is None:
        return ()
    first = named if isinstance(named, str) else next(iter(named or ()), "")  # some have several
    modules = dict(model.named_modules()) if model is not None and first else {}
    return size[0], getattr(modules.get(first), "in_channels", size[0])


def to_model(images: Tensor, like: Tensor | None) -> Tensor:
    """``images`` on the device and in the dtype of the model; tokens stay integers."""
    if like is None:
        return images
    return images.to(like.device, like.dtype if images.is_floating_point() else images.dtype)


def reference_tensor(model: torch.nn.Module) -> Tensor | None:
    """A floating-point parameter of the model, which tells device and dtype."""
    return next((p for p in model.parameters() if p.is_floating_point()), None)
