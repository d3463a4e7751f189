"""The entry that rebuilds converted networks: source, method and settings in plain values.

A folder of ``zoo.save`` names this entry, so that every loader, timm's included, builds the spiking network
and never the analog one in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import conversion
from zoo.rebuild import build_source
from zoo.registry import register_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from conversion import ConvertedModel


@register_model(listed=False)
def converted(
    source: Mapping[str, Any],
    method: str,
    time_steps: int,
    input_size: Sequence[int],
    settings: Mapping[str, Any] | None = None,
    fold_batch_norm: bool = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    input_dtype: str | None = None,
) -> ConvertedModel:
    """A converted network without its weights, thresholds and corrections, which a file brings.

    Args:
        source: ``{"architecture": NAME, "model_args": {...}}``; a name of the zoo, ``"timm/NAME"`` or
            ``"torchvision/NAME"``.
        method: name of the method.
        time_steps: T.
        input_size: ``(C, H, W)``, or the size of one sample.
        settings: of the method.
        fold_batch_norm: whether batch norms were folded.
        num_classes: must be that of the source, as the head is part of the converted graph.
        in_chans: must be that of the source.
        input_dtype: ``"int64"`` for a network that takes numbers of tokens.
    """
    model = build_source(source)
    recipe = {
        "source": dict(source),
        "method": method,
        "settings": dict(settings or {}),
        "time_steps": time_steps,
        "input_size": list(input_size),
    }
    if fold_batch_norm:
        recipe["fold_batch_norm"] = True
    if input_dtype is not None:
        recipe["input_dtype"] = input_dtype
    network = conversion.rebuild(model, recipe)
    for label, wanted in (("num_classes", num_classes), ("in_chans", in_chans)):
        got = getattr(network, label)
        if wanted is not None and wanted != got:
            raise ValueError(
                f"this network was converted with {label}={got}; {label}={wanted} needs a source built and"
                " trained so, and a new conversion"
            )
    return network


def resize(
    network: ConvertedModel,
    input_size: Sequence[int],
    calibration: Tensor | Iterable[Any] | None = None,
    *,
    progress: bool = True,
) -> ConvertedModel:
    """`conversion.resize` for a network that knows its source, which is built again with its weights.

    Args:
        network: a converted network; not changed.
        input_size: ``(C, H, W)``.
        calibration: see `conversion.resize`.
        progress: show progress bars.

    Raises:
        ValueError: the source is not known, or its weights are gone, as batch norms were folded into them.
        ConversionError: see `conversion.resize`.
    """
    recipe, why = network.recipe, ""
    if recipe["source"] is None:
        why = "does not know its source"
    elif recipe.get("fold_batch_norm"):
        why = "has batch norms folded into its weights"
    if why:
        raise ValueError(f"this network {why}; use conversion.resize(network, source, {tuple(input_size)})")
    source = build_source(recipe["source"])
    return conversion.resize(network, source, input_size, calibration, progress=progress)
