"""The stages between a source and a network that is not calibrated yet: graph, placement, network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from conversion.graph.export import export
from conversion.graph.fold_norms import fold_batch_norms
from conversion.graph.program import ConversionError, attribute
from conversion.graph.rewrite import rewrite
from conversion.model import Conversion, ConvertedModel
from conversion.network.annotation import Annotation
from conversion.network.clock import Clock
from conversion.report import Report, site_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from conversion.graph.placement import Placement
    from conversion.graph.program import Program
    from conversion.graph.rewrite import Rewritten
    from conversion.methods.base import Method


def build(model: nn.Module, recipe: Mapping[str, Any], method: Method, images: Tensor) -> ConvertedModel:
    """The network as ``recipe`` has it, thresholds and corrections still empty, in evaluation mode.

    Args:
        model: the source, in evaluation mode.
        recipe: of `ConvertedModel.recipe`.
        method: that the recipe names.
        images: two samples ``[2, ...]`` of `conversion.inputs.example`, for which the source is exported.

    Raises:
        ConversionError: the source cannot be exported, or has no place for a neuron.
        UnsupportedOperationError: an operation that no rule covers.
    """
    program = export(model, images)
    if recipe.get("fold_batch_norm"):
        fold_batch_norms(program)
    method.prepare(program)
    clock = Clock(int(recipe["time_steps"]))
    placement = method.place(program, clock)
    if not placement.sites:
        raise ConversionError(
            f"{type(model).__name__} has no activation that a neuron of {method.name} can stand for; it needs"
            f" ReLU, ReLU6 or QCFS{_otherwise(method)}"
        )
    for site in placement.sites:
        site.to(images.device)
    made = rewrite(program, clock, placement, method.domain)
    conversion = Conversion(
        recipe=dict(recipe),
        method=method,
        report=_report(method, clock, placement, made),
        num_classes=int(program.output.meta["val"].shape[-1]),
        num_features=_features(program, made),
        pretrained_cfg=dict(getattr(model, "pretrained_cfg", None) or {}),
        origin=getattr(model, "origin", None),
    )
    annotation = Annotation(clock=clock, traits=method.traits, operations=made.operations)
    converted = ConvertedModel(made.root, made.graph, annotation, conversion).eval()
    method.set_clock(clock, clock.time_steps)
    converted.report.rows = site_rows(converted)
    return converted


def _otherwise(method: Method) -> str:
    """What lets a method place neurons where there is hardly more than a first and a last layer."""
    ends = [f"{name}=True" for name in ("include_patch_embed", "include_head") if name in method.settings()]
    return f", or layers between the first and the last; {', '.join(ends)}" if ends else ""


def _report(method: Method, clock: Clock, placement: Placement, made: Rewritten) -> Report:
    """What is known before the calibration."""
    settings = ", ".join(f"{k}={v}" for k, v in method.settings().items())
    return Report(
        method=method.name + (f" ({settings})" if settings else ""),
        time_steps=clock.time_steps,
        rows=[],
        analog=made.analog,
        skipped=placement.analog,
        spiking_layers=len(made.spiking_inputs),
        layers=len(made.weighted),
    )


def _features(program: Program, made: Rewritten) -> int:
    """Inputs of the last layer with weights, 0 if there is none."""
    head = attribute(program.root, f"{made.weighted[-1]}.weight") if made.weighted else None
    return 0 if head is None else int(head.shape[1])
