"""Detectors of torchvision with a spiking backbone and head: FCOS (1904.01355), RetinaNet (1708.02002).

Backbone and head are converted as one network. What is no network stays torchvision's own code: resizing and
normalising images, anchors, decoding of boxes, suppression of overlapping ones. DCGS (arXiv 2503.00301)
converts these detectors so; its published settings for them are ``policy="official-cnn", threshold="99.9%",
level="channel", levels=8`` at 4 or 8 steps, with a neuron for each ReLU and exact group norms. A head runs on
every level of the pyramid with the same weights; each level has its own neurons and thresholds.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.image_list import ImageList
from typing_extensions import override

from conversion.convert import check_model, convert
from conversion.detection.images import CalibrationImages, PaddedBatches, checked_images, network_size, padded
from conversion.methods.base import get_method
from spiking.functional.codes import running_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from conversion.detection.images import Size
    from conversion.methods.base import Method
    from conversion.model import ConvertedModel
    from conversion.network.operation import Operations
    from conversion.report import Report

Detections = list[dict[str, Tensor]]


def convert_detector(
    detector: nn.Module,
    method: str | Method = "dcgs",
    time_steps: int = 8,
    calibration: Iterable[Any] | None = None,
    *,
    image_size: Sequence[int] | None = None,
    progress: bool = True,
    **settings: Any,
) -> SpikingDetector:
    """Make a spiking detector of a trained one.

    Works on a copy: ``detector`` is never changed, and the two share no storage.

    Args:
        detector: FCOS or RetinaNet of torchvision, on any backbone, in evaluation mode.
        method: name of a method, see `conversion.list_methods`, or a method with its settings.
        time_steps: T.
        calibration: images as the detector takes them, ``[C, H, W]`` of values 0 to 1 and any size: a list,
            or an iterable of batches, alone or in front of their targets.
        image_size: ``(H, W)`` that batches are padded to, as sizes are fixed in the converted network:
            multiples of the detector's ``transform.size_divisible``; what the calibration images need if
            missing.
        progress: show progress bars.
        **settings: of the method.

    Raises:
        TypeError: no FCOS or RetinaNet, or an unknown setting.
        ConversionError: it cannot be converted, or the self-test failed.
        CalibrationError: calibration images that do not fit.
        ValueError: a wrong name or value; names what is accepted.
    """
    if not isinstance(detector, FCOS | RetinaNet):
        raise TypeError(
            f"expected FCOS or RetinaNet of torchvision.models.detection, got {type(detector).__name__};"
            " conversion.convert takes classifiers"
        )
    check_model(detector)
    chosen = get_method(method, settings)
    images = None if calibration is None else CalibrationImages(calibration)
    size = network_size(detector, images, image_size)
    source = _Raw(detector)
    channels = len(detector.transform.image_mean)
    grids, widths = _layout(source, (channels, *size))
    network = convert(
        source,
        chosen,
        time_steps,
        None if images is None else PaddedBatches(images, detector, size),
        input_size=(channels, *size),
        progress=progress,
    )
    # of the detector itself only what is no network is copied
    left_out: dict[int, Any] = {id(detector.backbone): nn.Identity(), id(detector.head): nn.Identity()}
    return SpikingDetector(network, copy.deepcopy(detector, left_out), size, grids, widths).eval()


class SpikingDetector(nn.Module):
    """A detector whose backbone and head are a spiking network; made by `convert_detector`.

    ``model(images)`` takes images ``[C, H, W]`` of values 0 to 1 and any size, and gives for each a
    dictionary as torchvision's detectors do in evaluation mode: boxes ``[D, 4]`` (x1, y1, x2, y2 in pixels of
    the image), scores ``[D]`` and labels ``[D]``.

    Args:
        network: the converted network, ``[B, C, H, W]`` -> ``[B, N, K + 4 (+ 1)]`` for N anchors.
        detector: what is left of the source: sizes, anchors, decoding, thresholds of scores. Its
            ``score_thresh``, ``nms_thresh``, ``detections_per_img`` and ``topk_candidates`` can be set.
        image_size: ``(H, W)`` that batches are padded to.
        grids: ``(H, W)`` of each level of the feature pyramid.
        widths: size of the last axis of each output of the head.
    """

    def __init__(
        self,
        network: ConvertedModel,
        detector: FCOS | RetinaNet,
        image_size: Size,
        grids: Sequence[Size],
        widths: dict[str, int],
    ) -> None:
        super().__init__()
        self.network, self.detector = network, detector
        self.image_size, self.grids, self.widths = image_size, tuple(grids), dict(widths)

    @property
    def time_steps(self) -> int:
        """T. Can be set where the method allows it."""
        return self.network.time_steps

    @time_steps.setter
    def time_steps(self, value: int) -> None:
        self.network.time_steps = value

    @property
    def report(self) -> Report:
        """What was converted and how; ``print`` it."""
        return self.network.report

    def forward(self, images: Sequence[Tensor], *, steps: bool = False) -> Any:
        """Boxes, scores and labels of each image; with ``steps`` T such lists, one after each step.

        Args:
            images: images ``[C, H, W]``.
            steps: give what is found after 1, 2, ..., T steps.

        Raises:
            RuntimeError: in training mode.
            TypeError: images that are no floating-point tensors.
            ValueError: no image, one of another shape, or one too large for ``image_size``.
        """
        batch = self.batch(images)
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
        outputs = self._outputs(batch, steps)
        if steps:
            return [self._detections(o, batch, sizes) for o in outputs]
        return self._detections(outputs, batch, sizes)

    def batch(self, images: Sequence[Tensor]) -> ImageList:
        """Images resized and normalised as the source has it, and padded to ``image_size``.

        Gives torchvision's ``ImageList``: ``tensors [B, C, H, W]``, and ``image_sizes`` without padding.
        """
        return padded(checked_images(images), self.detector, self.image_size)

    def head_outputs(self, images: Sequence[Tensor], *, steps: bool = False) -> dict[str, Tensor]:
        """What the head gives, under torchvision's names: ``cls_logits [B, N, K]``, ``bbox_regression``...

        Args:
            images: images ``[C, H, W]``.
            steps: ``[T, B, N, ...]``, means of the steps up to 1, 2, ..., T.
        """
        return self._named(self._outputs(self.batch(images), steps))

    def count_operations(self, images: Sequence[Tensor]) -> Operations:
        """The operations of backbone and head on these images, step by step; changes nothing."""
        return self.network.count_operations(self.batch(images).tensors)

    @override
    def extra_repr(self) -> str:
        return f"image_size={self.image_size}"

    def _outputs(self, batch: ImageList, steps: bool) -> Tensor:
        """``[B, N, K + 4 (+ 1)]``, or what the steps up to each one represent, ``[T, B, N, K + 4 (+ 1)]``."""
        if self.training:
            raise RuntimeError(
                "a converted detector only detects: call eval(); to train it, train the source with"
                " torchvision's losses and convert it again"
            )
        outputs: Tensor = self.network(batch.tensors, steps=steps)
        return running_mean(outputs)[0] if steps else outputs

    def _named(self, outputs: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.widths, torch.split(outputs, list(self.widths.values()), dim=-1), strict=True))

    def _detections(self, outputs: Tensor, batch: ImageList, sizes: list[Size]) -> Detections:
        """Boxes, scores and labels from the outputs of the head, by torchvision's own steps."""
        maps = [outputs.new_empty(1, 1, *grid) for grid in self.grids]  # anchors depend on sizes alone
        anchors = self.detector.anchor_generator(batch, maps)
        each = outputs.shape[1] // sum(h * w for h, w in self.grids)
        counts = [h * w * each for h, w in self.grids]
        levels = {name: list(torch.split(o, counts, dim=1)) for name, o in self._named(outputs).items()}
        found = self.detector.postprocess_detections(
            levels, [list(torch.split(a, counts)) for a in anchors], batch.image_sizes
        )
        detections: Detections = self.detector.transform.postprocess(found, batch.image_sizes, sizes)
        return detections


class _Raw(nn.Module):
    """Backbone and head of a detector, ``[B, C, H, W]`` -> the outputs of the head side by side."""

    def __init__(self, detector: FCOS | RetinaNet) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head
        transform = detector.transform  # tells how large the values of normalised images become
        self.pretrained_cfg = {"mean": transform.image_mean, "std": transform.image_std}
        self.training = False

    def features(self, x: Tensor) -> list[Tensor]:
        """The levels of the pyramid, ``[B, C, H, W]`` each."""
        maps = self.backbone(x)
        return [maps] if isinstance(maps, Tensor) else list(maps.values())

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, K + 4]``, of FCOS ``[B, N, K + 5]``."""
        return torch.cat(list(self.head(self.features(x)).values()), dim=-1)


def _layout(source: _Raw, shape: tuple[int, ...]) -> tuple[list[Size], dict[str, int]]:
    """Sizes of the pyramid's levels, and of the last axis of each output of the head."""
    like = next(source.parameters())
    with torch.no_grad():
        maps = source.features(torch.zeros(1, *shape, device=like.device, dtype=like.dtype))
        widths = {name: int(output.shape[-1]) for name, output in source.head(maps).items()}
    return [(int(m.shape[-2]), int(m.shape[-1])) for m in maps], widths


__all__ = ["Detections", "SpikingDetector", "convert_detector"]
