"""JSON of others: bounded in size, depth and what its values are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 64_000_000  # bytes; an index of a million tensors has fewer
DEEPEST = 32
MOST_VALUES = 20_000


def read_json(path: Path, what: str) -> Any:
    """The value in a file.

    Args:
        path: the file.
        what: what it should be, for messages: "a model description".

    Raises:
        CheckpointError: it is no JSON, or too large.
        FileNotFoundError: there is none.
    """
    size = path.stat().st_size
    if size > LARGEST:
        raise CheckpointError(f"{path} is no {what}: it has {size:,} bytes")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (ValueError, RecursionError, MemoryError, OSError) as error:
        raise CheckpointError(f"{path} is no {what}: {error!r}") from error


def check_plain(value: Any, where: str) -> None:
    """Refuse what JSON cannot say, and more of it than any description of a network says.

    Args:
        value: from a file.
        where: what it is, for messages.

    Raises:
        CheckpointError: another type, too many values, or too deep.
    """
    left, rows = MOST_VALUES, [(value, 0)]
    while rows:
        value, depth = rows.pop()
        left -= 1
        if depth > DEEPEST or left < 0:
            raise CheckpointError(f"{where} is nested too deeply or too long to describe a network")
        if isinstance(value, Mapping):
            if odd := [key for key in value if not isinstance(key, str)]:
                raise CheckpointError(f"{where} has a key of type {type(odd[0]).__name__}, expected words")
            value = list(value.values())
        if isinstance(value, list | tuple):
            if len(value) > left:
                raise CheckpointError(f"{where} is too long to describe a network: {len(value):,} values")
            rows += [(one, depth + 1) for one in value]
        elif not isinstance(value, str | int | float | None):
            raise CheckpointError(f"{where} holds a {type(value).__name__}, expected plain values")
        elif isinstance(value, str) and len(value) > 10_000:
            raise CheckpointError(f"{where} holds a text of {len(value):,} characters")
        elif isinstance(value, int) and abs(value) >= 1 << 63:
            raise CheckpointError(f"{where} holds a number of more than 63 bits")
