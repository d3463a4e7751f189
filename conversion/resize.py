"""A converted network for images of another size: its source is exported again, its thresholds stay."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from conversion.convert import calibrate, prepare
from conversion.graph.program import ConversionError
from conversion.inputs import example
from conversion.network.site import sites
from conversion.report import site_rows
from conversion.self_test import self_test
from conversion.source import describe_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from conversion.model import ConvertedModel


def resize(
    converted: ConvertedModel,
    source: nn.Module,
    input_size: Sequence[int],
    calibration: Tensor | Iterable[Any] | None = None,
    *,
    progress: bool = True,
) -> ConvertedModel:
    """The same spiking network for images of another size; neither argument is changed.

    The sizes of all signals are fixed in a converted graph, so the source is exported again. Weights are
    those of ``converted``, also if it was fine-tuned; those of ``source`` where batch norms were folded.
    Position embeddings are resampled by the source's own ``set_input_size``, which timm's transformers have.

    Args:
        converted: the network.
        source: what it was converted from.
        input_size: ``(C, H, W)``.
        calibration: images of the new size to find thresholds anew. Without them the thresholds of
            ``converted`` stay, if they belong to layers or channels, not to single pixels or tokens.
        progress: show progress bars.

    Raises:
        ConversionError: the source does not run at this size, or thresholds belong to pixels or tokens.
    """
    size, recipe = tuple(int(s) for s in input_size), converted.recipe
    if len(size) != 3 or min(size) < 1 or size[0] != converted.in_chans:
        raise ValueError(f"input_size must be (C, H, W) with C = {converted.in_chans}, got {input_size!r}")
    folded = bool(recipe.get("fold_batch_norm"))
    analog = copy.deepcopy(source).eval().to(next(converted.parameters()).device)
    own = converted.state_dict()
    if not folded:
        known = {n: v for n, v in own.items() if n in analog.state_dict()}
        _take(analog, known, "this is not the source that the network was converted from")
    change: Any = getattr(analog, "set_input_size", None)
    if change is not None:
        change(img_size=size[1:])
    resized = prepare(
        analog,
        converted.method,
        converted.time_steps,
        input_size=size,
        source=_described(recipe["source"], describe_source(analog, size)),
        fold_batch_norm=folded,
    )
    resized.default_cfg, resized.origin = converted.default_cfg, converted.origin
    if calibration is not None:
        calibrate(resized, analog, calibration, progress=progress)
        return resized
    weights = {name for name, _ in analog.named_parameters()} | {name for name, _ in analog.named_buffers()}
    pinned = (
        "thresholds that belong to single pixels or tokens (level='neuron', or 'channel' in transformers)"
        " cannot be kept; give calibration images of the new size"
    )
    _take(resized, {n: v for n, v in own.items() if n not in weights}, pinned)
    resized.report.self_test = self_test(resized, analog, example(analog, resized.recipe))
    _report_as(resized, converted)
    return resized


def _report_as(resized: ConvertedModel, converted: ConvertedModel) -> None:
    """Report of the thresholds what the given network does, whose they are."""
    given = sites(converted)
    for name, site in sites(resized).items():
        site.fallback = given[name].fallback
    resized.report.rows, resized.report.images = site_rows(resized), converted.report.images


def _described(old: dict[str, Any] | None, new: dict[str, Any] | None) -> dict[str, Any] | None:
    """The description of the source with the image size that it has now."""
    if old is None or new is None or "img_size" not in {**old["model_args"], **new["model_args"]}:
        return old
    arguments = {k: v for k, v in old["model_args"].items() if k != "img_size"}
    size = {k: v for k, v in new["model_args"].items() if k == "img_size"}
    return {**old, "model_args": {**arguments, **size}}


@torch.no_grad()
def _take(model: nn.Module, state: dict[str, Tensor], hint: str) -> None:
    """Copy values of the same names and shapes into ``model``; every one must fit."""
    there = model.state_dict()
    for name, value in state.items():
        if name not in there or there[name].shape != value.shape:
            found = tuple(there[name].shape) if name in there else "no shape"
            raise ConversionError(
                f"{name!r} has the shape {tuple(value.shape)} in the given network and {found} here: {hint}"
            )
        there[name].copy_(value)
