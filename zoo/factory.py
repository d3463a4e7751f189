"""From a name to a model: arguments merged and checked, weights loaded strictly or not at all."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from zoo import locate
from zoo.base import ZooModel
from zoo.described import build_described
from zoo.errors import CheckpointError
from zoo.files.checkpoint import read_checkpoint
from zoo.files.description import read_description
from zoo.files.layout import CONFIG_FILE, FOLDER_VARIABLE
from zoo.files.weights import WeightsCfg, read_weights_cfg, weights_folders
from zoo.hub.download import with_repository
from zoo.loading import adopt_description, fill, load_weights, recall_conversion
from zoo.registry import Entry, get_entry, split_tag
from zoo.tasks import get_task
from zoo.timm_bridge import entry as timm_entry
from zoo.timm_bridge.models import load_timm
from zoo.timm_bridge.names import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping


def create(name: str, **kwargs: Any) -> nn.Module:
    """A fresh model with random weights, in training mode; what every training config uses.

    >>> create("spikingresformer-nano", num_classes=3).num_classes
    3

    Args:
        name: an entry, or ``"timm/NAME"`` for timm's own model.
        **kwargs: its arguments.
    """
    if name.startswith(PREFIX):
        return load_timm(name.removeprefix(PREFIX), False, None, kwargs).train()
    entry = get_entry(name)
    if split_tag(name)[1] is not None:
        raise ValueError(f"create builds random weights, but {name!r} names trained ones; use zoo.load")
    return entry.fn(**kwargs).train()


def load(
    name: str,
    pretrained: bool | None = None,
    weights: str | Path | None = None,
    **kwargs: Any,
) -> nn.Module:
    """A model ready for use, in evaluation mode.

    Args:
        name: an entry (``"spikingresformer-l"``, ``"name.tag"``), ``"local-dir:PATH"``, a path,
            ``"hf-hub:OWNER/NAME@REV"``, or ``"timm/NAME"`` for timm's own model.
        pretrained: ``True`` demands weights; ``False`` asks for random ones; ``None`` loads the
            published weights if the entry has any, and otherwise builds random ones and warns.
        weights: a checkpoint file or folder to load strictly instead: ours or the authors' own.
        **kwargs: arguments of the entry.

    Returns:
        The model, in evaluation mode.
    """
    if weights is not None and pretrained is False:
        raise ValueError("weights=... together with pretrained=False contradicts itself; give one")
    if name.startswith(PREFIX):
        return load_timm(name.removeprefix(PREFIX), pretrained, weights, kwargs).eval()
    if locate.is_location(name):
        return locate.load_location(name, pretrained, weights, kwargs).eval()

    entry = get_entry(name)
    tag = split_tag(name)[1]
    available = entry.weights
    if tag is not None and tag not in available:
        for folder in weights_folders():
            if (folder / f"{entry.name}.{tag}" / CONFIG_FILE).is_file():
                read_weights_cfg(folder / f"{entry.name}.{tag}")  # says what is wrong with it
        known = ", ".join(f"{entry.name}.{t}" for t in available) or "none"
        raise FileNotFoundError(f"no weights {name!r}; known: {known}; {_where(entry)}")
    if weights is not None:
        model = entry.fn(**kwargs)
        load_weights(model, weights, entry, explicit=kwargs)
        _adopt_own(model, Path(weights), entry, kwargs)
    elif pretrained is False:
        model = entry.fn(**kwargs)
    elif available:
        cfg = available[tag if tag is not None else next(iter(available))]
        model = load_cfg(cfg, entry, kwargs)
    elif pretrained:
        raise FileNotFoundError(f"{entry.name} has no weights; {_where(entry)}")
    else:
        warnings.warn(
            f"{entry.name} has no trained weights, so this model has random ones; {_where(entry)};"
            " pretrained=False silences this",
            stacklevel=2,
        )
        model = entry.fn(**kwargs)
    return model.eval()


def load_cfg(cfg: WeightsCfg, entry: Entry, explicit: Mapping[str, Any]) -> nn.Module:
    """The model of the weights that ``cfg`` describes; their hash is checked first."""

    def build(place: Path) -> nn.Module:
        found = read_checkpoint(place, cfg.sha256)
        model = build_described(entry.name, cfg.model_args, explicit, found, str(place))
        fill(model, found, str(place), entry, explicit)
        _adopt(model, place, explicit)
        return model

    if cfg.file is not None:
        if not Path(cfg.file).exists():
            raise FileNotFoundError(f"the weights of {entry.name} are missing: {cfg.file}; {_where(entry)}")
        model = build(Path(cfg.file))
    elif cfg.url is not None and cfg.url.startswith("hf-hub:"):
        model = with_repository(cfg.url.removeprefix("hf-hub:"), build)
    else:
        raise FileNotFoundError(f"the weights of {entry.name} have no location; {_where(entry)}")
    if isinstance(model, ZooModel):
        tag = next((t for t, c in entry.weights.items() if c == cfg), "")
        model.origin = {"name": f"{entry.name}.{tag}".rstrip("."), "licence": cfg.licence, "url": cfg.url}
    return model


def _adopt(model: nn.Module, place: Path, explicit: Mapping[str, Any]) -> None:
    if (place / CONFIG_FILE).is_file():
        described = read_description(place)
        adopt_description(model, described, explicit)
        recall_conversion(model, described)


def _adopt_own(model: nn.Module, weights: Path, entry: Entry, explicit: Mapping[str, Any]) -> None:
    """What a description beside the weights says, if it is one of this entry; others' files may lie there."""
    folder = weights if weights.is_dir() else weights.parent
    try:
        described = read_description(folder)
    except (CheckpointError, OSError):
        return
    if described.architecture == entry.name and (weights.is_dir() or weights.suffix == ".safetensors"):
        adopt_description(model, described, explicit)


def register_with_timm(entry: Entry) -> None:
    """Make timm build our classifiers by their names, too; it must have none of them."""
    if get_task(entry.task).timm:
        timm_entry.register(entry, build_for_timm)


def build_for_timm(entry: Entry, pretrained: bool, kwargs: dict[str, Any]) -> nn.Module:
    """What ``timm.create_model`` calls; ``pretrained=True`` demands weights there, too."""
    cfg = kwargs.pop("pretrained_cfg", None)
    overlay = kwargs.pop("pretrained_cfg_overlay", None) or {}
    for key in ("pretrained_model_args", "cache_dir", "features_only", "scriptable", "exportable"):
        value = kwargs.pop(key, None)
        if key == "features_only" and value:
            raise ValueError(f"{entry.name}: use forward_intermediates instead of features_only")
    tag = cfg if isinstance(cfg, str) else None
    fields = dict(cfg) if isinstance(cfg, dict) else {}
    fields.update(overlay)
    if not pretrained:
        return entry.fn(**kwargs)
    if fields.get("file") or fields.get("hf_hub_id"):
        kwargs.setdefault("num_classes", fields.get("num_classes"))
        model = entry.fn(**kwargs)
        # timm names the place; what the description itself may say about it is not for it to choose
        local = fields.get("source") == "local-dir" or not fields.get("hf_hub_id")

        def read(place: Path) -> None:
            load_weights(model, place, entry, explicit=kwargs)
            _adopt(model, place, kwargs)

        if local:
            read(Path(fields["file"]))
        else:
            with_repository(str(fields["hf_hub_id"]), read)
        return model
    return load(entry.name + (f".{tag}" if tag else ""), pretrained=True, **kwargs).train()


def _where(entry: Entry) -> str:
    """Where weights were looked for, and the ways out."""
    folders = ", ".join(str(f / f"{entry.name}.TAG") for f in weights_folders())
    note = f" ({entry.note})" if entry.note else ""
    return (
        f"looked for {folders} (set {FOLDER_VARIABLE} to search a folder of your own);"
        f" a checkpoint file can be given with weights=PATH{note}"
    )


__all__ = ["create", "load", "load_weights"]
