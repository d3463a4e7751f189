"""timm's own models as places to load from: built and loaded by ``timm/NAME``, under our rules."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.files import checkpoint
from zoo.hub.download import read_config
from zoo.hub.explain import explain
from zoo.hub.token import find_token
from zoo.timm_bridge.names import PLACES, pretrained_cfg, timm_origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


def load_timm(
    name: str, pretrained: bool | None, weights: str | Path | None, kwargs: dict[str, Any]
) -> nn.Module:
    """The model ``name`` of timm itself, under the same rules as an entry of ours."""
    import timm

    if not timm.is_model(name.split(".", 1)[0]):
        raise ValueError(f"timm has no model {name!r}; zoo.list_models('timm/*') lists what it has")
    if weights is not None:
        model = _build(name, kwargs)
        state = checkpoint.read_checkpoint(Path(weights)).state
        checkpoint.load_strict(model, state, source=str(weights))
        _set_origin(model, {"name": Path(weights).name, "licence": None, "url": None})
        return model
    has = timm.models.is_model_pretrained(name)
    if pretrained is False or (pretrained is None and not has):
        if pretrained is None:
            warnings.warn(f"timm has no weights for {name}; this model has random ones", stacklevel=3)
        return _build(name, kwargs)
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
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise FileNotFoundError(
            f"the weights of timm/{name} could not be fetched: {reason}; give a file with weights=PATH"
            " or ask for random ones with pretrained=False"
        ) from error
    _set_origin(model, timm_origin(model))
    return model


def load_timm_folder(
    folder: Path, pretrained: bool | None, weights: Path | None, kwargs: dict[str, Any]
) -> nn.Module:
    """A model of timm from a folder or repository in timm's form."""
    config = read_config(folder)
    cfg = {k: v for k, v in (config.get("pretrained_cfg") or {}).items() if k not in PLACES}
    arguments = {**(config.get("model_args") or {})}
    arguments.setdefault("num_classes", config.get("num_classes"))
    model = _build(str(config["architecture"]), {**arguments, **kwargs}, pretrained_cfg=cfg)
    if pretrained is False:
        return model
    own = config.get("fulgurite") or {}
    found = checkpoint.read_checkpoint(weights or folder, None if weights else own.get("sha256"))
    checkpoint.load_strict(model, found.state, source=str(weights or folder))
    labels = config.get("label_names")
    if isinstance(labels, list):
        model.label_names = labels  # type: ignore[assignment]
    return model


def _build(name: str, kwargs: Mapping[str, Any], pretrained: bool = False, **cfg: Any) -> nn.Module:
    import timm

    given = {key: value for key, value in kwargs.items() if value is not None}
    model: nn.Module = timm.create_model(name, pretrained=pretrained, **given, **cfg)
    args = {key: value for key, value in given.items() if not key.startswith(("pretrained", "cache"))}
    model.model_args = args  # type: ignore[assignment]  # what builds it again, as on our own models
    return model


def _set_origin(model: nn.Module, origin: Mapping[str, str | None] | None) -> None:
    model.origin = origin  # type: ignore[assignment]
