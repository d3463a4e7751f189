"""Folders, files and repositories that hold a model, and timm's own models, as places to load from."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import _checkpoint
from zoo._registry import get_entry
from zoo._remote import download
from zoo._weights import CONFIG_FILE, WEIGHTS_FILE

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
    if name.startswith(("hf-hub:", "hf_hub:")):
        path = download(name.split(":", 1)[1])
    else:
        path = Path(name.removeprefix("local-dir:")).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    architecture, arguments, sha256 = _recipe(path)
    entry = get_entry(architecture)
    model = entry.fn(**{**arguments, **kwargs})
    if pretrained is False:
        return model
    from zoo._build import load_weights  # _build imports this module

    source = path if weights is None else Path(weights)
    load_weights(model, source, entry, explicit=kwargs, sha256=sha256 if weights is None else None)
    return model


def _recipe(path: Path) -> tuple[str, dict[str, Any], str | None]:
    """Entry name, its arguments and the recorded hash of what lies at ``path``."""
    if path.is_file() and path.suffix == ".ckpt":
        hyper = _checkpoint.read_checkpoint(path).hyper_parameters
        if not isinstance(hyper.get("model"), str):
            raise _checkpoint.CheckpointError(
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
        config = json.loads(config_path.read_text(encoding="utf-8"))
        architecture = config["architecture"]
    except (ValueError, KeyError, TypeError) as error:
        raise _checkpoint.CheckpointError(f"{config_path} is no model description: {error!r}") from error
    arguments = dict(config.get("model_args") or {})
    arguments.setdefault("num_classes", config.get("num_classes"))
    own = config.get("fulgurite") or {}
    is_main = path.is_dir() or path.name == WEIGHTS_FILE
    return architecture, arguments, own.get("sha256") if is_main else None


def load_timm(
    name: str, pretrained: bool | None, weights: str | Path | None, kwargs: dict[str, Any]
) -> nn.Module:
    """The model ``name`` of timm itself, under the same rules as an entry of ours."""
    import timm

    if not timm.is_model(name.split(".", 1)[0]):
        raise ValueError(f"timm has no model {name!r}; timm.list_models() lists what it has")
    if weights is not None:
        model: nn.Module = timm.create_model(name, pretrained=False, **kwargs)
        state = _checkpoint.read_checkpoint(Path(weights)).state
        _checkpoint.load_strict(model, state, source=str(weights))
        return model
    has = timm.models.is_model_pretrained(name)
    if pretrained is False or (pretrained is None and not has):
        if pretrained is None:
            warnings.warn(f"timm has no weights for {name}; this model has random ones", stacklevel=3)
        return timm.create_model(name, pretrained=False, **kwargs)  # type: ignore[no-any-return]
    if not has:
        raise FileNotFoundError(f"timm has no weights for {name!r}; give weights=PATH")
    try:
        return timm.create_model(name, pretrained=True, **kwargs)  # type: ignore[no-any-return]
    except Exception as error:
        if isinstance(error, TypeError):
            raise
        raise FileNotFoundError(
            f"the weights of timm/{name} could not be fetched ({type(error).__name__}:"
            f" {str(error).splitlines()[0] if str(error) else ''}); give a file with weights=PATH"
            " or ask for random ones with pretrained=False"
        ) from error
