"""Files of ``torch.save``: tensors and plain values, never code."""

from __future__ import annotations

import argparse
import mmap
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo.errors import CheckpointError
from zoo.files.formats.archive import check_archive, is_archive

if TYPE_CHECKING:
    from pathlib import Path


def read_torch(path: Path) -> Any:
    """What a file of ``torch.save`` holds, with its tensors on the CPU.

    Archives are verified first (`check_archive`) and mapped into memory: what a tensor claims beyond the
    file is not there. Who keeps tensors copies them. Files of before torch 1.6 have no checksums.

    Raises:
        CheckpointError: the file is damaged, holds code, or is no checkpoint.
    """
    archive = is_archive(path)
    if archive:
        check_archive(path)
    _refuse_allocations(path)
    try:
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except Exception as error:  # what hostile bytes make of torch's readers is not only their own errors
        if not _starts_like_a_checkpoint(path):
            raise CheckpointError(
                f"{path} is no checkpoint: it holds neither an archive of tensors nor a pickle of them"
            ) from error
        if isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(
                f"{path} contains pickled code or objects, which could run anything, so it is not"
                " loaded; in the program that wrote it, save only the tensors:"
                " torch.save(model.state_dict(), PATH)"
            ) from error
        raise CheckpointError(f"{path} cannot be read (cut off?): {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _refuse_allocations(path: Path) -> None:
    """``bytearray`` is the one thing that torch's reader lets a pickle call with a size of its own choice."""
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = content.find(b"bytearray\n")
    if found >= 0:
        raise CheckpointError(f"{path} contains pickled code: it makes a bytearray, which no weights need")


def _harmless() -> list[Any]:
    """Classes without code that training scripts leave beside the tensors: settings and NumPy's numbers."""
    scalar: Any = np.float64(0).__reduce__()[0]  # what all of NumPy's numbers are pickled with
    kinds = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64, np.bool_)]
    return [argparse.Namespace, np.dtype, *kinds, (scalar, "numpy.core.multiarray.scalar"), scalar]


def _starts_like_a_checkpoint(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(2)
    return head == b"PK" or head[:1] == b"\x80"  # a zip archive, or a pickle of protocol 2 or later
