"""Folders, files and repositories that hold a model, as places to load from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import CheckpointError
from zoo.files import checkpoint
from zoo.files.description import read_description
from zoo.files.layout import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE
from zoo.hub.download import with_repository
from zoo.loading import adopt_description, load_weights
from zoo.registry import get_entry
from zoo.timm_bridge.models import load_timm, load_timm_folder
from zoo.timm_bridge.names import PREFIX, is_timm

if TYPE_CHECKING:
    from torch import nn

SUFFIXES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin")


def is_location(name: str) -> bool:
    """Whether ``name`` points at a folder, a file or a repository rather than at an entry."""
    if name.startswith(("local-dir:", "hf-hub:", "hf_hub:")):
        return True
    return os.sep in name or name.endswith(SUFFIXES)


def load_location(
    name: str, pretrained: bool | None, weights: str | Path | None, kwargs: dict[str, Any]
) -> nn.Module:
    """Rebuild the model that a folder, file or repository describes, and load its weights."""
    remote = name.startswith(("hf-hub:", "hf_hub:"))
    place = name.split(":", 1)[1] if remote else name.removeprefix("local-dir:")
    if remote:
        return with_repository(place, lambda folder: _load(folder, name, pretrained, weights, kwargs))
    path = Path(place).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    return _load(path, None, pretrained, weights, kwargs)


def _load(
    path: Path,
    remote: str | None,
    pretrained: bool | None,
    weights: str | Path | None,
    kwargs: dict[str, Any],
) -> nn.Module:
    architecture, arguments, sha256 = _recipe(path, remote)
    if architecture.startswith(PREFIX) and path.is_file():
        source = None if pretrained is False else (weights or path)
        return load_timm(architecture.removeprefix(PREFIX), pretrained, source, {**arguments, **kwargs})
    if is_timm(architecture) and path.is_dir():
        return load_timm_folder(path, pretrained, None if weights is None else Path(weights), kwargs)
    entry = get_entry(architecture)
    model = entry.fn(**{**arguments, **kwargs})
    if path.is_dir():
        adopt_description(model, path, kwargs)
    if pretrained is False:
        return model
    source = path if weights is None else Path(weights)
    load_weights(model, source, entry, explicit=kwargs, sha256=sha256 if weights is None else None)
    if weights is None and path.is_dir():
        named: Any = model
        named.origin = _origin(path, remote)
    return model


def _origin(folder: Path, remote: str | None) -> dict[str, Any] | None:
    """Where the weights of a folder come from: what it says itself, or the folder."""
    described = read_description(folder)
    own = described.recorded
    if remote is not None:
        name = f"{remote.partition('@')[0]}@{folder.name}"
        return {"name": name, "licence": own.licence, "url": None}
    if own.origin is not None:
        return own.origin.to_dict()
    if own.licence:
        return {"name": f"a folder of zoo.save, {described.architecture}", "licence": own.licence}
    return None


def _recipe(path: Path, remote: str | None = None) -> tuple[str, dict[str, Any], str | None]:
    """Entry name, its arguments and the recorded hash of what lies at ``path``."""
    if path.is_file() and path.suffix == ".ckpt":
        hyper = checkpoint.read_checkpoint(path).hyper_parameters
        if not isinstance(hyper.get("model"), str):
            raise CheckpointError(
                f"{path} does not name its model; use zoo.load(NAME, weights={str(path)!r})"
            )
        arguments = dict(hyper.get("model_args") or {})
        for key in ("num_classes", "in_chans"):
            if hyper.get(key) is not None:
                arguments.setdefault(key, hyper[key])
        return hyper["model"], arguments, None
    folder = path if path.is_dir() else path.parent
    if not (folder / CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"no {CONFIG_FILE} in {folder}, so the architecture is unknown;"
            f" use zoo.load(NAME, weights={str(path)!r})"
        )
    described = read_description(folder, remote)
    arguments = dict(described.model_args)
    if described.num_classes is not None:
        arguments.setdefault("num_classes", described.num_classes)
    is_main = path.is_dir() or path.name in (WEIGHTS_FILE, INDEX_FILE)
    return described.architecture, arguments, described.recorded.sha256 if is_main else None
