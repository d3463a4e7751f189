"""The conversion itself: checks, export, neurons, calibration, self-test."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from conversion.build import build
from conversion.calibration.batches import Batches, reference_tensor, to_model
from conversion.graph.program import ConversionError
from conversion.graph.wrappers import unwrapped
from conversion.inputs import TOKENS, example, takes_tokens
from conversion.methods.base import Method, get_method, get_recorded
from conversion.model import ConvertedModel
from conversion.report import Report, site_rows
from conversion.self_test import IMAGES, self_test
from conversion.source import describe_source
from spiking.layers import check_time_steps
from spiking.measure.finite import damaged, listed
from spiking.neurons.base import Neuron

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def convert(
    model: nn.Module,
    method: str | Method = "qcfs",
    time_steps: int = 8,
    calibration: Tensor | Iterable[Any] | None = None,
    *,
    input_size: Sequence[int] | None = None,
    source: Mapping[str, Any] | None = None,
    fold_batch_norm: bool = False,
    progress: bool = True,
    **settings: Any,
) -> ConvertedModel:
    """Make a spiking network of an ANN.

    Works on a copy: ``model`` is never changed, and the two share no storage.

    Args:
        model: a classifier ``[B, C, H, W]`` -> ``[B, K]`` in evaluation mode: of the zoo, of timm, of
            torchvision, or any other that ``torch.export`` takes; it may also give ``[B, N, K]``, logits of N
            positions. Instead of images it may take series ``[B, C, L]``, volumes ``[B, C, D, H, W]``,
            features ``[B, F]``, or numbers of tokens ``[B, N]``, int64. For detectors see
            `conversion.detection.detector`.
        method: name of a method, see `list_methods`, or a method with its settings.
        time_steps: T.
        calibration: images as for the model's own evaluation: a tensor ``[N, C, H, W]``, or whatever the
            model takes, or any iterable of batches whose first entry is the images. Methods that need none
            do without.
        input_size: ``(C, H, W)``, or the size of one sample; taken from the calibration data or from the
            model's ``default_cfg``.
        source: ``{"architecture": ..., "model_args": {...}}``, from which the zoo can build the source again;
            found by itself for models of the zoo and of timm.
        fold_batch_norm: fold batch norms into the layers before them: faster, but these layers no longer
            have the weights of the source, and fine-tuning goes without norms.
        progress: show progress bars.
        **settings: of the method.

    Returns:
        The spiking network, in evaluation mode.

    Raises:
        ConversionError: the model cannot be converted, or the self-test failed.
        UnsupportedOperationError: an operation that no rule covers.
        CalibrationError: calibration data that do not fit.
        ValueError: a wrong name or value; names what is accepted.
    """
    chosen = get_method(method, settings)
    model = unwrapped(model)
    check_model(model)
    batches = None if calibration is None else _batches(model, calibration, progress)
    size = _input_size(model, batches, input_size)
    first = None if batches is None else batches.first
    converted = _prepare(model, chosen, time_steps, size, source, fold_batch_norm, first)
    _calibrate(converted, model, batches)
    return converted


def prepare(
    model: nn.Module,
    method: str | Method = "qcfs",
    time_steps: int = 8,
    *,
    input_size: Sequence[int] | None = None,
    source: Mapping[str, Any] | None = None,
    fold_batch_norm: bool = False,
    **settings: Any,
) -> ConvertedModel:
    """The first half of `convert`: neurons are in their places, and nothing is calibrated.

    Takes no images, so that a task can build its network before there are data. `calibrate` is the other
    half; arguments and errors are those of `convert`.
    """
    chosen = get_method(method, settings)
    model = unwrapped(model)
    check_model(model)
    size = _input_size(model, None, input_size)
    return _prepare(model, chosen, time_steps, size, source, fold_batch_norm, None)


def _prepare(
    model: nn.Module,
    chosen: Method,
    time_steps: int,
    size: tuple[int, ...],
    source: Mapping[str, Any] | None,
    fold_batch_norm: bool,
    batch: Tensor | None,
) -> ConvertedModel:
    chosen.check_time_steps(time_steps)
    began = time.perf_counter()
    recipe = {
        "source": dict(source) if source is not None else describe_source(model, size),
        "method": chosen.name,
        "settings": chosen.settings(),
        "time_steps": time_steps,
        "input_size": list(size),
    }
    if fold_batch_norm:
        recipe["fold_batch_norm"] = True
    if takes_tokens(model, size, batch):
        recipe["input_dtype"] = TOKENS
    converted = build(model, recipe, chosen, example(model, recipe))
    converted.report.seconds = {"graph": time.perf_counter() - began}
    return converted


def calibrate(
    converted: ConvertedModel,
    model: nn.Module,
    calibration: Tensor | Iterable[Any] | None = None,
    *,
    progress: bool = True,
) -> Report:
    """The other half of `convert`: find what the method needs to know, and compare with the source.

    Args:
        converted: of `prepare`; changed in place.
        model: its source.
        calibration: see `convert`.
        progress: show progress bars.

    Returns:
        The report of the conversion, also at ``converted.report``.

    Raises:
        ConversionError: the method needs images and there are none, or the self-test failed.
        CalibrationError: calibration data that do not fit.
    """
    model = unwrapped(model)
    batches = None if calibration is None else _batches(model, calibration, progress)
    expected = tuple(converted.recipe["input_size"])
    if batches is not None and batches.shape != expected:
        raise ConversionError(
            f"the network was prepared for images {expected}, the calibration images are {batches.shape}"
        )
    if batches is not None and batches.first.is_floating_point() == ("input_dtype" in converted.recipe):
        raise ConversionError(
            f"the network was prepared for {converted.recipe.get('input_dtype', 'floating-point')} inputs,"
            f" the calibration data are {batches.first.dtype}"
        )
    return _calibrate(converted, model, batches)


def _calibrate(converted: ConvertedModel, model: nn.Module, batches: Batches | None) -> Report:
    method, report = converted.method, converted.report
    if batches is None and method.needs_data(converted):
        raise ConversionError(
            f"{method.name} needs images to find thresholds for this source; give"
            " calibration=LOADER_OR_TENSOR (in a YAML file, calibration: {samples: 100}), images as for the"
            " model's own evaluation"
        )
    began = time.perf_counter()
    with torch.no_grad():
        method.calibrate(converted, batches)
    report.seconds["calibration"] = time.perf_counter() - began
    began = time.perf_counter()
    images = example(model, converted.recipe) if batches is None else batches.first[:IMAGES]
    images = to_model(images, reference_tensor(model))
    report.self_test = self_test(converted, model, images)
    report.seconds["self-test"] = time.perf_counter() - began
    report.remarks = method.remarks(converted)
    for remark in report.remarks:
        warnings.warn(remark, stacklevel=3)
    report.rows = site_rows(converted)
    report.images = batches.images if batches is not None else 0
    return report


def _batches(model: nn.Module, calibration: Tensor | Iterable[Any], progress: bool) -> Batches:
    return Batches(calibration, dict(getattr(model, "pretrained_cfg", None) or {}), progress, model)


def rebuild(model: nn.Module, recipe: Mapping[str, Any]) -> ConvertedModel:
    """The network that ``recipe`` describes, from its source; its state comes from a file afterwards.

    Args:
        model: the source, with any weights.
        recipe: of `ConvertedModel.recipe`.
    """
    method = get_recorded(str(recipe["method"]), recipe["settings"])
    check_time_steps(int(recipe["time_steps"]))
    training = model.training
    try:
        return build(model.eval(), recipe, method, example(model, recipe))
    finally:
        model.train(training)


def check_model(model: nn.Module) -> None:
    """Refuse what is no ANN in evaluation mode with finite weights."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a model, got {type(model).__name__}")
    if isinstance(model, ConvertedModel):
        raise ConversionError("this network is converted already; convert its source instead")
    if any(isinstance(m, Neuron) for m in model.modules()):
        raise ConversionError(f"{type(model).__name__} has spiking neurons already; only ANNs are converted")
    training = [name or type(model).__name__ for name, m in model.named_modules() if m.training]
    if training:
        raise ConversionError(
            f"the model is in training mode ({training[0]}); call model.eval() first, so that batch norm and"
            " dropout are those of evaluation"
        )
    wrong = damaged((*model.named_parameters(), *model.named_buffers()), model)
    if wrong:
        raise ConversionError(f"{listed(wrong)}; the source cannot be converted")


def _input_size(model: nn.Module, batches: Batches | None, given: Sequence[int] | None) -> tuple[int, ...]:
    if given is not None:
        size = tuple(int(s) for s in given)
        if batches is not None and batches.shape != size:
            raise ConversionError(f"input_size is {size}, the calibration images are {batches.shape}")
        return size
    if batches is not None and batches.shape is not None:
        return batches.shape
    for name in ("default_cfg", "pretrained_cfg"):
        cfg = getattr(model, name, None)
        if isinstance(cfg, dict) and cfg.get("input_size"):
            return tuple(int(s) for s in cfg["input_size"])
    raise ConversionError(
        f"the input size of {type(model).__name__} is unknown; give input_size=(C, H, W) or calibration"
        " images"
    )
