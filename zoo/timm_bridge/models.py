"""timm's own models as places to load from: listed, described and loaded by ``timm/NAME``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.files import checkpoint
from zoo.files.layout import WeightsCfg
from zoo.hub.download import explain, find_token, read_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

PREFIX = "timm/"
UNKNOWN = (None, "", "None", "unknown", "other")  # licences that say nothing
PLACES = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source")  # of weights, in a cfg


def is_timm(name: str) -> bool:
    """Whether timm itself, not this zoo, has a model ``NAME`` or ``NAME.TAG``."""
    import timm

    from zoo.registry import is_registered  # _registry imports this module

    base = name.split(".", 1)[0]
    return bool(timm.is_model(base)) and not is_registered(base)


def list_timm(pattern: str, pretrained: bool) -> list[str]:
    """Names of timm's classifiers, as ``timm/NAME``, or with weights as ``timm/NAME.TAG``."""
    import timm

    found: list[str] = timm.list_models(pattern, pretrained=pretrained)
    names = [name for name in found if is_timm(name)]
    if pretrained:  # the others are backbones without a head, which classify nothing
        names = [name for name in names if timm.get_pretrained_cfg(name).num_classes]
    return [PREFIX + name for name in sorted(names)]


def timm_family(name: str) -> str:
    """The file of timm that model ``NAME`` or ``NAME.TAG`` is written in."""
    import timm

    entry: Any = timm.models.model_entrypoint(name.partition(".")[0])
    return str(entry.__module__).rpartition(".")[2]


def timm_weights(name: str) -> dict[str, WeightsCfg]:
    """Weights of timm's model ``name``, by tag; timm's own choice comes first."""
    import timm

    found: dict[str, WeightsCfg] = {}
    for full in timm.list_pretrained(f"{name}.*"):
        if full.split(".", 1)[0] == name:
            cfg = timm.get_pretrained_cfg(full)
            found[cfg.tag] = WeightsCfg(
                url=f"hf-hub:{cfg.hf_hub_id}" if cfg.hf_hub_id else cfg.url or None,
                input_size=tuple(cfg.input_size),
                num_classes=cfg.num_classes,
                licence=None if cfg.license in UNKNOWN else cfg.license,
                paper=arxiv_id(cfg.paper_ids),
            )
    default = timm.get_pretrained_cfg(name)
    first = getattr(default, "tag", None)
    return {t: found[t] for t in sorted(found, key=lambda t: (t != first, t))}


def arxiv_id(ids: Any) -> str | None:
    """The first arXiv id in the ``paper_ids`` of a configuration."""
    names = [ids] if isinstance(ids, str) else list(ids or ())
    return next((n.partition(":")[2] for n in names if str(n).lower().startswith("arxiv:")), None)


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
        cfg = timm.get_pretrained_cfg(name)
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


def timm_origin(model: nn.Module) -> dict[str, str | None] | None:
    """Name, licence and address of the weights that a network of timm, or one made of it, came with.

    What its configuration says: whether they were loaded, or trained anew, timm does not record.
    """
    cfg: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    architecture = str(cfg.get("architecture") or "")
    if not architecture or not is_timm(architecture):
        return None
    hub = cfg.get("hf_hub_id")
    return {
        "name": PREFIX + ".".join(filter(None, (architecture, cfg.get("tag")))),
        "licence": None if cfg.get("license") in UNKNOWN else str(cfg.get("license")),
        "url": f"https://huggingface.co/{hub}" if hub else cfg.get("origin_url") or cfg.get("url") or None,
    }
