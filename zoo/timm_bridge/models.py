"""timm's own models as places to load from: built and loaded by ``timm/NAME``, under our rules."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.files import checkpoint
from zoo.files.formats.torch_file import first_line
from zoo.files.strict import check_finite, load_strict, structure
from zoo.hub.explain import explain
from zoo.hub.token import find_token
from zoo.timm_bridge.adapt import CHANGES, adapted
from zoo.timm_bridge.arguments import BEYOND
from zoo.timm_bridge.names import no_timm, pretrained_cfg, timm_origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


def load_timm(
    name: str, pretrained: bool | None, weights: str | Path | None, kwargs: dict[str, Any]
) -> nn.Module:
    """The model ``name`` of timm itself, under the same rules as an entry of ours."""
    import timm

    if not timm.is_model(name.split(".", 1)[0]):
        raise ValueError(no_timm(name))
    if weights is not None:
        return _from_file(name, str(weights), kwargs)
    has = timm.models.is_model_pretrained(name)
    if pretrained is False or (pretrained is None and not has):
        if pretrained is None:
            warnings.warn(f"timm has no weights for {name}; this model has random ones", stacklevel=3)
        model = _build(name, kwargs)
        _note(model, origin={})
        return model
    if not has:
        raise FileNotFoundError(f"timm has no weights for {name!r}; give weights=PATH")
    try:
        model = _build(name, kwargs, pretrained=True)
    except TypeError:  # an argument that the model does not take
        raise
    except Exception as error:
        cfg = pretrained_cfg(name)
        reason = explain(error, cfg.hf_hub_id or name, find_token())
        if reason is None:
            reason = f"{type(error).__name__}: {first_line(error)}"
        raise FileNotFoundError(
            f"the weights of timm/{name} could not be fetched: {reason}; give a file with weights=PATH"
            " or ask for random ones with pretrained=False"
        ) from error
    _note(model, origin=timm_origin(model))
    return model


def _from_file(name: str, weights: str, kwargs: Mapping[str, Any]) -> nn.Module:
    """The network with the weights of a file, adapted where the caller asked for another input or head."""
    model = _build(name, kwargs)
    found = checkpoint.read_checkpoint(Path(weights))
    differs = any(structure(model, found.state).values())
    if differs and any(kwargs.get(key) is not None for key in CHANGES):
        check_finite(model, found.state, weights)
        model, fresh = adapted(functools.partial(_build, name), model, found.state, kwargs, weights)
        if fresh:
            warnings.warn(
                f"{weights} was trained for another number of classes; the classifier of"
                f" {kwargs['num_classes']} classes starts from random weights",
                stacklevel=4,
            )
    else:
        load_strict(model, found.state, source=weights, adopt=found.ours)
    if found.preprocessing:
        cfg: Any = getattr(model, "pretrained_cfg", {})
        _note(model, pretrained_cfg={**cfg, **found.preprocessing})
    origin = {"name": Path(weights).name, "licence": None, "url": None}
    _note(model, origin=origin if found.origin is None else found.origin)
    return model


def _build(name: str, kwargs: Mapping[str, Any], pretrained: bool = False, **cfg: Any) -> nn.Module:
    import timm

    given = {key: value for key, value in kwargs.items() if value is not None}
    model: nn.Module = timm.create_model(name, pretrained=pretrained, **given, **cfg)
    args = {key: value for key, value in given.items() if not BEYOND.search(key)}
    _note(model, model_args=args)  # what builds it again, as on our own models
    return model


def _note(model: Any, **facts: Any) -> None:
    """Attributes that our own models have and timm's have not."""
    for name, value in facts.items():
        setattr(model, name, value)
