"""Folders, files and repositories that hold a model, as places to load from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiking.arguments import nearest
from zoo.described import build_described
from zoo.errors import CheckpointError
from zoo.files import checkpoint
from zoo.files.description import read_description
from zoo.files.layout import CONFIG_FILE, RUNS, is_run, names_in, run_checkpoint, runs
from zoo.hub.download import with_repository
from zoo.interchange.from_nir import load_nir
from zoo.loading import adopt_description, fill, recall_conversion
from zoo.own import refuse_strangers
from zoo.rebuild import architecture_of
from zoo.registry import get_entry, is_registered
from zoo.timm_bridge.names import PREFIX, is_timm

if TYPE_CHECKING:
    from torch import nn

    from zoo.files.description import Description

NIR = ".nir"
SUFFIXES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin", NIR)


def is_remote(name: str) -> bool:
    """Whether ``name`` is a repository of the Hub."""
    return name.startswith(("hf-hub:", "hf_hub:"))


def is_location(name: str) -> bool:
    """Whether ``name`` points at a folder, a file or a repository rather than at an entry."""
    if is_remote(name) or name.startswith("local-dir:"):
        return True
    return os.sep in name or name.endswith(SUFFIXES) or _folder_called(name) is not None


def _folder_called(name: str) -> Path | None:
    """A folder of a network in the working directory, or a run in ``runs``; names of entries come first."""
    if not name or is_registered(name):
        return None
    places = (Path(name), Path(RUNS) / name)
    return next((place for place in places if (place / CONFIG_FILE).is_file() or is_run(place)), None)


def place_of(name: str) -> Path:
    """The folder or file of this machine that `zoo.load` reads for ``name``.

    Raises:
        FileNotFoundError: there is none; or a run has no checkpoint.
    """
    path = path_of(name)
    return run_checkpoint(path) if is_run(path) and not (path / CONFIG_FILE).is_file() else path


def path_of(name: str) -> Path:
    """The folder of a network or of a run, or the file, that a name means.

    Raises:
        FileNotFoundError: there is none; names the nearest.
    """
    place = name.removeprefix("local-dir:")
    path = Path(place).expanduser()
    if (found := _folder_called(place)) is not None:
        return found
    if path.exists():
        return path
    near = nearest(path.name, names_in(path.parent))
    if near is None and path.name == place and (of_run := nearest(place, runs())) is not None:
        raise FileNotFoundError(f"no such file, folder or run: {path}; did you mean {of_run}?")
    hint = f"; did you mean {path.parent / near}?" if near else ""
    raise FileNotFoundError(f"no such file or folder: {path}{hint}")


def load_location(
    name: str, pretrained: bool | None, weights: str | Path | None, kwargs: dict[str, Any]
) -> nn.Module:
    """Rebuild the model that a folder, file or repository describes, and load its weights."""
    if is_remote(name):
        place = name.split(":", 1)[1]
        return with_repository(place, lambda folder: _load(folder, name, pretrained, weights, kwargs))
    path = place_of(name)
    if path.is_file() and path.suffix == NIR:
        if weights is not None or pretrained is False:
            raise ValueError(f"{path} holds the network and its weights; load it without others")
        return load_nir(path, **kwargs)
    return _load(path, None, pretrained, weights, kwargs)


def _load(
    path: Path,
    remote: str | None,
    pretrained: bool | None,
    weights: str | Path | None,
    kwargs: dict[str, Any],
) -> nn.Module:
    source = Path(weights or path)
    described: Description | None = None
    found: checkpoint.Checkpoint | None = None
    if path.is_file() and path.suffix == ".ckpt":
        of_run = checkpoint.read_checkpoint(path)
        name, arguments = checkpoint.settings_of(of_run, path)
        beside: checkpoint.Checkpoint | None = of_run
        if pretrained is not False:
            found = of_run if weights is None else checkpoint.read_checkpoint(source)
    else:
        described = _description(path, remote)
        name, arguments = described.architecture, _arguments(described)
        if pretrained is not False:
            found = checkpoint.read_checkpoint(source)
        beside = _weights_beside(path) if found is None or weights is not None else found
    name = name.removeprefix(PREFIX)
    if remote is not None:
        refuse_strangers(name, arguments)
    where = f"{path}, its settings" if described is None else str(_folder(path) / CONFIG_FILE)
    cfg = None if described is None else described.pretrained_cfg
    model = build_described(name, arguments, kwargs, beside, where, cfg)
    if described is not None:
        adopt_description(model, described, kwargs)
    if found is None:
        return model
    entry = None if is_timm(name) else get_entry(name)
    fill(model, found, str(weights or path), entry, kwargs)
    if described is not None and weights is None:
        recall_conversion(model, described)
    _remember_origin(model, path, described, remote, weights, found)
    return model


def _weights_beside(path: Path) -> checkpoint.Checkpoint | None:
    """The weights that a description is compared with where they are not asked for; None if it has none."""
    try:
        return checkpoint.read_checkpoint(path)
    except (FileNotFoundError, CheckpointError):
        return None


def _remember_origin(
    model: Any,
    path: Path,
    described: Description | None,
    remote: str | None,
    weights: str | Path | None,
    found: checkpoint.Checkpoint,
) -> None:
    if is_timm(model_name := architecture_of(model)):
        if found.origin is not None:
            model.origin = found.origin
        elif not path.is_dir():
            model.origin = {"name": Path(weights or path).name, "licence": None, "url": None}
    elif weights is None and described is not None and path.is_dir() and model_name:
        model.origin = _origin(path, described, remote)


def _origin(folder: Path, described: Description, remote: str | None) -> dict[str, Any] | None:
    """Where the weights of a folder come from: what it says itself, or the folder."""
    own = described.recorded
    if remote is not None:
        name = f"{remote.partition('@')[0]}@{folder.name}"
        return {"name": name, "licence": own.licence, "url": None}
    if own.origin is not None:
        return own.origin.to_dict()
    if own.licence:
        return {"name": f"a folder of zoo.save, {described.architecture}", "licence": own.licence}
    return None


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _description(path: Path, remote: str | None) -> Description:
    """What the folder says, or that of the file."""
    if path.is_dir() and not (path / CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"the folder {path} holds no network: neither {CONFIG_FILE}, as zoo.save writes it, nor"
            " checkpoints of a run"
        )
    if not (_folder(path) / CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"no {CONFIG_FILE} in {_folder(path)}, so the architecture is unknown;"
            f" use zoo.load(NAME, weights={str(path)!r})"
        )
    return read_description(_folder(path), remote)


def _arguments(described: Description) -> dict[str, Any]:
    if described.num_classes is None:
        return dict(described.model_args)
    return {"num_classes": described.num_classes, **described.model_args}
