"""Documents of different lengths side by side in rows, each as if it were alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_DOCUMENT = 0  # number of padding; documents count from 1


class Packed(NamedTuple):
    """Rows of documents, ``[B, L]`` each.

    Attributes:
        tokens: ids.
        documents: which document of its row each token belongs to, from 1; 0 is padding.
        positions: place within the document.
    """

    tokens: Tensor
    documents: Tensor
    positions: Tensor


def pack(documents: Sequence[Tensor], pad: int, length: int | None = None) -> Packed:
    """Put whole documents into rows, each into the first that has room (first fit).

    Args:
        documents: ids ``[N]`` each.
        pad: id that fills up rows to the longest.
        length: most tokens of a row; None gives every document a row of its own.

    Raises:
        ValueError: no document, or one longer than a row.
    """
    if not documents:
        raise ValueError("there is no document to pack")
    rows: list[list[Tensor]] = []
    room: list[int] = []
    for number, tokens in enumerate(documents):
        need = len(tokens)
        if length is not None and need > length:
            raise ValueError(
                f"document {number} of a batch has {need} tokens, but rows are packed to {length};"
                " make pack_length longer, or documents shorter"
            )
        place = next((n for n, left in enumerate(room) if left >= need), None)
        if place is None:
            place = len(rows)
            rows.append([])
            room.append(0 if length is None else length)
        rows[place].append(tokens)
        room[place] -= need
    longest = max(sum(map(len, row)) for row in rows)
    made = [_filled(row, longest, pad) for row in rows]
    return Packed(*(torch.stack(part) for part in zip(*made, strict=True)))


def _filled(row: Sequence[Tensor], length: int, pad: int) -> tuple[Tensor, Tensor, Tensor]:
    like = row[0]
    empty = length - sum(map(len, row))
    tokens = torch.cat([*row, like.new_full((empty,), pad)])
    numbers = [like.new_full((len(part),), n + 1) for n, part in enumerate(row)]
    documents = torch.cat([*numbers, like.new_full((empty,), NO_DOCUMENT)])
    places = [torch.arange(len(part), device=like.device) for part in row]
    positions = torch.cat([*places, like.new_zeros(empty)])
    return tokens, documents, positions
