"""Reading checkpoints without running code from them, and loading them strictly."""

from __future__ import annotations

import argparse
import pickle
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from zoo.errors import CheckpointError
from zoo.files.layout import (
    CONFIG_FILE,
    INDEX_FILE,
    WEIGHTS_FILE,
    check_shard_names,
    sha256_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

SHOWN = 8  # keys listed in an error before "and N more"
IGNORED = re.compile(r"(^|\.)(total_ops|total_params)$")  # left behind by the thop profiler
PREFIXES = ("module.", "_orig_mod.")  # DataParallel and DDP; torch.compile
HEADER_LIMIT = 100_000_000  # bytes; what safetensors itself accepts, checked before a byte is read


class HashError(CheckpointError):
    """A file that is not the one whose hash was recorded."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a checkpoint by name, whether we wrote it, and the run's settings, if any."""

    state: dict[str, Tensor]
    ours: bool
    hyper_parameters: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Path, sha256: str | None = None) -> Checkpoint:
    """Read weights from a file or a folder of ``zoo.save``.

    Accepted: ``.safetensors``; torch files that hold tensors and plain values only, being a bare
    state dict, one under ``"model"`` or ``"state_dict"`` (with ``module.`` or ``_orig_mod.`` in
    front of the names or not), or a Lightning checkpoint of a task, whose network is ``model.*``.
    """
    path = weights_file(path)
    if sha256 is not None:
        _check_hash(path, sha256)
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _unwrap(_read_torch(path), path)


def _check_hash(path: Path, sha256: str) -> None:
    if (got := sha256_of(path)) != sha256:
        raise HashError(
            f"{path} is not the file that was published: SHA-256 {got}, expected {sha256};"
            " it was changed, cut off, or a save was interrupted: write or fetch it again",
            path,
        )


def weights_file(path: Path) -> Path:
    """The file to read at ``path``: itself, or in a folder the weights or their index."""
    if not path.exists():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    if not path.is_dir():
        return path
    for name in (WEIGHTS_FILE, INDEX_FILE):
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"{path} holds no {WEIGHTS_FILE}; zoo.save writes such a folder")


def _read_shards(index: Path) -> Checkpoint:
    """Weights in several files; the index records the SHA-256 of each."""
    state: dict[str, Tensor] = {}
    ours = False
    for name, sha256 in check_shard_names(index).items():
        path = index.parent / name
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
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if size >= 8 and header > min(HEADER_LIMIT, size - 8):
        raise CheckpointError(
            f"{path} is no whole safetensors file (cut off?): its header claims {header:,} bytes,"
            f" the file has {size:,}"
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
            ours = "fulgurite" in (file.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no whole safetensors file (cut off?): {error}") from error
    return Checkpoint(state=_clean(state), ours=ours)


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if _starts_like_a_checkpoint(path):
            raise CheckpointError(
                f"{path} contains pickled code or objects, which could run anything, so it is not"
                " loaded; in the program that wrote it, save only the tensors:"
                " torch.save(model.state_dict(), PATH)"
            ) from error
        raise CheckpointError(f"{path} is no checkpoint: {_first_line(error)}") from error
    except (RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read (cut off?): {_first_line(error)}") from error


def _harmless() -> list[Any]:
    """Classes without code that training scripts leave beside the tensors: settings and NumPy's numbers."""
    scalar: Any = np.float64(0).__reduce__()[0]  # what all of NumPy's numbers are pickled with
    kinds = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64, np.bool_)]
    return [argparse.Namespace, np.dtype, *kinds, (scalar, "numpy.core.multiarray.scalar"), scalar]


def _starts_like_a_checkpoint(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(2)
    return head == b"PK" or head[:1] == b"\x80"  # a zip archive, or a pickle of protocol 2 or later


def _unwrap(content: Any, path: Path) -> Checkpoint:
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict")
    # "entry" is what builds the network where the settings of the run build another one, its source
    hyper = content.get("entry", content.get("hyper_parameters"))
    lightning = "pytorch-lightning_version" in content
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    state = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
    if not state:
        keys = ", ".join(map(str, list(content)[:SHOWN]))
        raise CheckpointError(f"{path} holds no tensors under 'model' or 'state_dict'; it has: {keys}")
    if lightning:  # a task: keep its network, drop criteria and metrics
        inner = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
        state = inner or state
    return Checkpoint(
        state=_clean(state),
        ours=lightning,
        hyper_parameters=hyper if isinstance(hyper, dict) else {},
    )


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


def load_strict(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    allow_missing: set[str] | None = None,
) -> None:
    """Load every tensor or none: all keys and shapes are compared before the first copy.

    Raises:
        CheckpointError: with the missing, unexpected, misshapen and non-finite entries.
    """
    own = model.state_dict()
    missing = [k for k in own if k not in state and k not in (allow_missing or set())]
    unexpected = [k for k in state if k not in own]
    shared = [k for k in own if k in state]
    misshapen = [
        f"{k}: expected {_shape(own[k])}, got {_shape(state[k])}"
        for k in shared
        if own[k].shape != state[k].shape
    ]
    broken = [k for k in shared if state[k].is_floating_point() and not bool(state[k].isfinite().all())]
    problems = [
        f"{len(keys)} {label}: " + ", ".join(keys[:SHOWN]) + _more(keys)
        for label, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
            ("with NaN or infinite values", broken),
        )
        if keys
    ]
    if problems:
        hint = ""
        if not missing and not unexpected and all("classifier" in m for m in misshapen):
            hint = "; for another number of classes give num_classes=... explicitly"
        raise CheckpointError(
            f"{source} does not fit {type(model).__name__}, nothing was loaded: " + "; ".join(problems) + hint
        )
    model.load_state_dict(dict(state), strict=not allow_missing)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _more(keys: list[str]) -> str:
    return f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


__all__ = ["CONFIG_FILE", "Checkpoint", "CheckpointError", "load_strict", "read_checkpoint"]
