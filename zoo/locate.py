"""Folders, files and repositories that hold a model, as places to load from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import CheckpointError
from zoo.files import checkpoint
from zoo.files.layout import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE
from zoo.hub.download import download, forget, read_config
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
    path = download(place) if remote else Path(place).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    try:
        return _load(path, name if remote else None, pretrained, weights, kwargs)
    except checkpoint.HashError as error:
        if not remote or error.path.parent != path:
            raise
        forget(error.path)
        raise CheckpointError(
            f"{error}; the file was taken out of the cache, so the next call fetches it again"
        ) from None


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
        model.origin = _origin(path, remote)  # type: ignore[assignment]
    return model


def _origin(folder: Path, remote: str | None) -> dict[str, Any] | None:
    """Where the weights of a folder come from: what it says itself, or the folder."""
    own = read_config(folder).get("fulgurite") or {}
    licence = own.get("licence")
    if remote is not None:
        return {"name": f"{remote.partition('@')[0]}@{folder.name}", "licence": licence, "url": None}
    origin = own.get("origin")
    if origin is None and licence:
        origin = {"name": f"a folder of zoo.save, {read_config(folder)['architecture']}", "licence": licence}
    return origin if isinstance(origin, dict) else None


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
    config_path = folder / CONFIG_FILE
    if not config_path.is_file():
        raise FileNotFoundError(
            f"no {CONFIG_FILE} in {folder}, so the architecture is unknown;"
            f" use zoo.load(NAME, weights={str(path)!r})"
        )
    try:
        config = read_config(folder)
    except ValueError as error:
        raise CheckpointError(f"{config_path} is no model description: {error!r}") from error
    architecture = config.get("architecture")
    if not isinstance(architecture, str):
        raise _foreign(config, remote or str(config_path))
    arguments = dict(config.get("model_args") or {})
    arguments.setdefault("num_classes", config.get("num_classes"))
    own = config.get("fulgurite") or {}
    is_main = path.is_dir() or path.name in (WEIGHTS_FILE, INDEX_FILE)
    return architecture, arguments, own.get("sha256") if is_main else None


def _foreign(config: dict[str, Any], where: str) -> Exception:
    """The error for a configuration that is not ours, saying whose it looks like."""
    for key, owner in (
        ("model_type", "transformers"),
        ("_class_name", "diffusers"),
        ("model_cfg", "open_clip"),
    ):
        if key in config:
            return CheckpointError(
                f"{where} is no model description of ours or timm's: it looks like one of {owner}"
                f" ({key}: {config[key]!r}), whose networks this zoo does not build; load it with {owner},"
                " or, if an entry has this architecture, zoo.load(NAME, weights=FILE)"
            )
    return CheckpointError(
        f"{where} is no model description: it names no 'architecture' (it has:"
        f" {', '.join(list(config)[:8]) or 'nothing'}); if you know the network, zoo.load(NAME, weights=FILE)"
    )
