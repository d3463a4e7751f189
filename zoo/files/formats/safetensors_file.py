"""Files of safetensors: a header that tells every tensor, and their bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors import safe_open

from zoo.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

HEADER_LIMIT = 100_000_000  # bytes; what safetensors itself accepts, checked before a byte is read


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, mapped into memory, and the metadata.

    The library compares the header with the size of the file before any tensor is made.

    Raises:
        CheckpointError: the file is damaged, or no such file.
    """
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
            return state, dict(file.metadata() or {})
    except Exception as error:  # a dtype that torch lacks is a RuntimeError or KeyError of the library
        raise CheckpointError(f"{path} is no whole safetensors file (cut off?): {error}") from error
