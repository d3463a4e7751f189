"""Tensors into safetensors files: equal weights give equal files."""

from __future__ import annotations

import errno
import json
import os
from typing import IO, TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from zoo.files.atomic import write_bytes
from zoo.files.layout import INDEX_FILE, WEIGHTS_FILE, sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

MAX_SHARD = "5GB"  # above it the Hub advises several files; 10^9 bytes each
COMPACT = "compact"  # in a file's metadata: its float16 stands for float32


def write_weights(
    folder: Path, state: Mapping[str, Tensor], name: str, max_shard_size: int | str, compact: bool = False
) -> tuple[str, dict[str, str]]:
    """Write a state dict.

    Args:
        folder: where to.
        state: tensors by name.
        name: of the architecture, for the metadata.
        max_shard_size: weights above it go into several files with an index.
        compact: write float32 tensors that float16 holds exactly as such; they are read as float32 again.

    Returns:
        Name of the file that leads to all tensors, and the SHA-256 of every file by name, that one first.

    Raises:
        OSError: the disk is full or not writable.
    """
    from huggingface_hub import split_torch_state_dict_into_shards

    metadata = {"format": "pt", "fulgurite": name}
    if compact and not any(value.dtype == torch.float16 for value in state.values()):  # these stay halves
        state = {key: _compact(value) for key, value in state.items()}
        metadata[COMPACT] = "float32"
    plan = split_torch_state_dict_into_shards(dict(state), max_shard_size=max_shard_size)
    hashes = {}
    for file, keys in plan.filename_to_tensors.items():
        # copies of one shard at a time; tied tensors are untied, which the format demands
        part = {k: state[k].cpu().contiguous().clone() for k in keys}
        _write_tensors(folder / file, part, metadata)
        hashes[file] = sha256_of(folder / file)
    if not plan.is_sharded:
        return WEIGHTS_FILE, hashes
    total = sum(v.numel() * v.element_size() for v in state.values())
    index = {
        "metadata": {"total_size": total, "sha256": hashes},
        "weight_map": plan.tensor_to_filename,
    }
    write_bytes(folder / INDEX_FILE, (json.dumps(index, indent=2, sort_keys=True) + "\n").encode())
    return INDEX_FILE, {INDEX_FILE: sha256_of(folder / INDEX_FILE), **hashes}


def _compact(tensor: Tensor) -> Tensor:
    if tensor.dtype != torch.float32:
        return tensor
    half = tensor.half()
    return half if torch.equal(half.float(), tensor) else tensor


def _write_tensors(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    try:
        save_file(state, path, metadata=metadata)
    except SafetensorError as error:
        if "No space left" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise OSError(errno.EIO, str(error), str(path)) from error
    with path.open("rb+") as file:
        _order_metadata(file)
        file.flush()
        os.fsync(file.fileno())


def _order_metadata(file: IO[bytes]) -> None:
    """Sort the metadata, which the library writes in a random order: equal weights, equal hash."""
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
    if len(text) == length:
        file.seek(8)
        file.write(text)
