"""Checkpoints of every accepted form, read without running code from them; see `zoo.files.strict`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from zoo.errors import CheckpointError
from zoo.files.description import LABELS, NOTE, TASK, noted_preprocessing
from zoo.files.formats.json_file import check_plain, read_json
from zoo.files.formats.safetensors_file import read_safetensors
from zoo.files.formats.torch_file import read_torch
from zoo.files.layout import (
    CONFIG_FILE,
    INDEX_FILE,
    PART,
    WEIGHTS_FILE,
    check_shard_names,
    located,
    sha256_of,
)
from zoo.files.tensors import COMPACT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

SHOWN = 8  # keys listed in an error
IGNORED = re.compile(r"(^|\.)(total_ops|total_params)$")  # left behind by the thop profiler
PREFIXES = ("module.", "_orig_mod.")  # DataParallel and DDP; torch.compile
MOST_SHARED = 16  # times that a byte of a file may be part of a tensor: tied weights share theirs


class HashError(CheckpointError):
    """A file that is not the one whose hash was recorded."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a checkpoint by name, whether we wrote it, and of a run what it notes.

    That is its settings, how images are prepared, the names of the classes, what the network is for, and the
    origin.

    The origin is that of the weights that the run started from, empty if these were random, and None where
    the file does not tell. Files of authors may hold further state dicts, the parts, beside the network's.
    """

    state: dict[str, Tensor]
    ours: bool
    hyper_parameters: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] | None = None
    parts: dict[str, Callable[[], dict[str, Tensor]]] = field(default_factory=dict)
    label_names: list[str] | None = None
    task: str | None = None

    def with_parts(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The state, and the tensors of these parts, read now, as ``NAME.KEY``."""
        found = {name: self.parts[name]() for name in names if name in self.parts}
        return {**self.state, **{f"{name}.{k}": v for name, part in found.items() for k, v in part.items()}}


def read_checkpoint(path: Path, sha256: str | None = None) -> Checkpoint:
    """Read weights from a file or a folder of ``zoo.save``.

    Accepted: ``.safetensors``; torch files that hold tensors and plain values only, being a bare
    state dict, one under ``"model"``, ``"state_dict"`` or nerfstudio's ``"pipeline"`` (with ``module.`` or
    ``_orig_mod.`` in front of the names or not), or a Lightning checkpoint of a task, whose network is
    ``model.*``.

    Whatever is known about the file is compared before a tensor is read: the SHA-256 that a description or
    an index beside it records, and the checksums that archives of torch hold.

    Args:
        path: file or folder.
        sha256: hash of the file; missing: what the description beside it records.

    Raises:
        CheckpointError: the file is damaged, no checkpoint, or holds code.
        FileNotFoundError: there is none.
    """
    path, recorded = _find(path)
    sha256 = sha256 or recorded
    if sha256 is not None:
        _check_hash(path, sha256)
    try:
        if path.name.endswith(".json"):
            return _read_shards(path)
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        return _unwrap(read_torch(path), path)
    except RecursionError as error:
        raise CheckpointError(f"{path} is nested too deeply to be a checkpoint") from error


def recorded_sha256(folder: Path) -> str | None:
    """The hash of the weights that the description in a folder records, None if it does not.

    Raises:
        CheckpointError: the description cannot be read.
    """
    if not (folder / CONFIG_FILE).is_file():
        return None
    content = read_json(folder / CONFIG_FILE, "model description")
    own = content.get(PART) if isinstance(content, Mapping) else None
    found = own.get("sha256") if isinstance(own, Mapping) else None
    return found if isinstance(found, str) else None


def _check_hash(path: Path, sha256: str) -> None:
    if (got := sha256_of(path)) != sha256:
        raise HashError(
            f"{path} is not the file that was published: SHA-256 {got}, expected {sha256};"
            " it was changed, cut off, or a save was interrupted: write or fetch it again",
            path,
        )


def weights_file(path: Path) -> Path:
    """The file to read at ``path``: itself, or in a folder the weights or their index.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: the folder's description cannot be read.
    """
    return _find(path)[0]


def _find(path: Path) -> tuple[Path, str | None]:
    """The file to read at ``path``, and its hash if a description beside it records one."""
    if not path.exists():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    folder, names = path, [WEIGHTS_FILE, INDEX_FILE]
    if not path.is_dir():
        if path.name not in names:
            return path, None
        folder, names = path.parent, [path.name]
    sha256 = recorded_sha256(folder)
    places = [located(folder, name, sha256) for name in names]
    for place in sorted(places, key=lambda place: place.name in names):  # what waits for its name comes first
        if place.is_file():
            return place, sha256
    raise FileNotFoundError(f"{path} holds no {WEIGHTS_FILE}; zoo.save writes such a folder")


def _read_shards(index: Path) -> Checkpoint:
    """Weights in several files; the index records the SHA-256 of each."""
    state: dict[str, Tensor] = {}
    ours = False
    for name, sha256 in check_shard_names(index).items():
        path = located(index.parent, name, sha256)
        if not path.is_file():
            raise FileNotFoundError(f"{index} names {name}, which is not there; fetch the whole folder")
        if sha256:
            _check_hash(path, sha256)
        shard = _read_safetensors(path)
        if twice := sorted(set(state) & set(shard.state)):
            raise CheckpointError(f"{name} holds {twice[0]}, which another file of {index} has, too")
        state |= shard.state
        ours = shard.ours
    return Checkpoint(state=state, ours=ours)


def _read_safetensors(path: Path) -> Checkpoint:
    state, metadata = read_safetensors(path)
    if COMPACT in metadata:
        state = {key: v.float() if v.dtype == torch.float16 else v for key, v in state.items()}
    return Checkpoint(state=_clean(state), ours="fulgurite" in metadata)


def _unwrap(content: Any, path: Path) -> Checkpoint:
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict")
    # "entry" is what builds the network where the settings of the run build another one, its source
    hyper = content.get("entry", content.get("hyper_parameters"))
    origin = content.get("origin")
    lightning, content_of_run = "pytorch-lightning_version" in content, content
    preprocessing = noted_preprocessing(content.get(NOTE)) if lightning else {}
    parts: dict[str, Callable[[], dict[str, Tensor]]] = {}
    for key in ("model", "state_dict", "pipeline"):
        if isinstance(content.get(key), dict):
            parts = {} if lightning else _parts(content, key, path)
            content = content[key]
            break
    state = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if not state:
        keys = ", ".join(str(k)[:80] if isinstance(k, str) else type(k).__name__ for k in [*content][:SHOWN])
        raise CheckpointError(f"{path} holds no tensors under 'model' or 'state_dict'; it has: {keys}")
    if lightning:  # a task: keep its network, drop criteria and metrics
        inner = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
        state = inner or state
    return Checkpoint(
        state=_clean(_own(state, path)),
        ours=lightning,
        hyper_parameters=hyper if isinstance(hyper, dict) else {},
        preprocessing=preprocessing,
        origin=origin if lightning and isinstance(origin, dict) else None,
        parts=parts,
        label_names=_labels(content_of_run.get(LABELS)) if lightning else None,
        task=content_of_run[TASK] if lightning and isinstance(content_of_run.get(TASK), str) else None,
    )


def _labels(content: Any) -> list[str] | None:
    plain = isinstance(content, list) and all(isinstance(label, str) for label in content)
    return content if plain else None


def _parts(
    content: Mapping[Any, Any], network: str, path: Path
) -> dict[str, Callable[[], dict[str, Tensor]]]:
    """The state dicts beside that of the network: mappings of names to tensors and nothing else."""

    def reader(part: dict[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
        return lambda: _clean(_own(part, path))

    found: dict[str, Callable[[], dict[str, Tensor]]] = {}
    for name, part in content.items():
        if name == network or not isinstance(name, str) or not isinstance(part, dict) or not part:
            continue
        if all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in part.items()):
            found[name] = reader(part)
    return found


def _own(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Copies in memory, which outlive the file; views of one storage stay views of one.

    Views that repeat numbers stay views; together they may claim `MOST_SHARED` times what the file holds.
    """
    left = path.stat().st_size
    views = MOST_SHARED * left
    storages: dict[int, torch.UntypedStorage] = {}
    own: dict[str, Tensor] = {}
    for name, value in state.items():
        if value.layout is not torch.strided or value.is_quantized or value.is_nested or value.is_meta:
            raise CheckpointError(f"{path}: {name[:200]} is no plain dense tensor; save it as one")
        size, stored = value.numel() * value.element_size(), value.untyped_storage()
        key = stored.data_ptr()
        views -= size
        left -= 0 if key in storages else stored.nbytes()
        if views < 0 or left < 0:
            raise CheckpointError(f"{path}: {name[:200]} claims {size:,} bytes, more than the file holds")
        if key not in storages:
            storages[key] = stored.clone()
        place = (value.storage_offset(), value.shape, value.stride())
        own[name] = torch.empty(0, dtype=value.dtype).set_(storages[key], *place)
    return own


def settings_of(found: Checkpoint, path: Path) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the network that the settings in a checkpoint of a run tell.

    Raises:
        CheckpointError: they tell none, or no plain values.
    """
    hyper = found.hyper_parameters
    name, arguments = hyper.get("model"), hyper.get("model_args") or {}
    if not isinstance(name, str):
        raise CheckpointError(f"{path} does not name its model; use zoo.load(NAME, weights={str(path)!r})")
    if not isinstance(arguments, dict):
        raise CheckpointError(f"{path}: model_args is a {type(arguments).__name__}, expected a mapping")
    sizes = {key: hyper[key] for key in ("num_classes", "in_chans") if hyper.get(key) is not None}
    check_plain([name, arguments, sizes], f"{path}, model_args")
    return name, {**sizes, **arguments}


def _clean(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = [k for k in state if not IGNORED.search(k)]
    cleaned = {k: state[k] for k in names}
    stripped = True
    while stripped and cleaned:
        stripped = False
        for prefix in PREFIXES:
            if all(k.startswith(prefix) for k in cleaned):
                cleaned = {k.removeprefix(prefix): v for k, v in cleaned.items()}
                stripped = True
    return cleaned
