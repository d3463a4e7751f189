"""Documents of text and images as rows of tokens, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from zoo.models.emu3_5.vocabulary import Vocabulary


def image_block(vocabulary: Any, codes: Tensor) -> Tensor:
    """Whole images: start, size, image token, rows of codes with ends of lines between them, end.

    Args:
        vocabulary: the ids.
        codes: counted from 0, ``[B, h, w]``.

    Returns:
        ``[B, N]``.
    """
    count, height, width = codes.shape
    lines = codes.new_full((count, height, 1), vocabulary.end_of_line)
    body = torch.cat([codes + vocabulary.first_visual, lines], -1).reshape(count, -1)[:, :-1]
    opening = [vocabulary.image_start, *vocabulary.grid_tokens(height, width), vocabulary.image_token]
    head = codes.new_tensor(opening).expand(count, -1)
    return torch.cat([head, body, codes.new_full((count, 1), vocabulary.image_end)], 1)


def documents(vocabulary: Vocabulary, words: Tensor, codes: Tensor) -> Tensor:
    """Sequences of captions and their images: BOS, then words and image in turn, then EOS.

    Args:
        vocabulary: the ids.
        words: ids of text, ``[B, I, W]``.
        codes: counted from 0, ``[B, I, h, w]``.

    Returns:
        ``[B, L]``.
    """
    parts = [words.new_full((len(words), 1), vocabulary.bos)]
    for number in range(words.shape[1]):
        parts += [words[:, number], image_block(vocabulary, codes[:, number])]
    parts.append(words.new_full((len(words), 1), vocabulary.eos))
    return torch.cat(parts, 1)


def images_in(vocabulary: Vocabulary, tokens: Tensor) -> list[Tensor]:
    """Codes ``[h, w]``, counted from 0, of every whole image in a sequence ``[L]``.

    Raises:
        ValueError: an image that is cut off, or whose rows differ in length.
    """
    found: list[Tensor] = []
    opened = (tokens == vocabulary.image_token).nonzero()[:, 0].tolist()
    ends = (tokens == vocabulary.image_end).nonzero()[:, 0].tolist()
    for number, begin in enumerate(opened):
        if number >= len(ends):
            raise ValueError(f"the image that begins at token {begin} is cut off: it has no end")
        body = tokens[begin + 1 : ends[number]]
        lines = (body == vocabulary.end_of_line).nonzero()[:, 0].tolist()
        rows = list(torch.tensor_split(body, lines))
        rows = [rows[0], *(row[1:] for row in rows[1:])]
        if len({len(row) for row in rows}) != 1 or bool((torch.stack(rows) < vocabulary.first_visual).any()):
            raise ValueError(f"the image that begins at token {begin} has rows of unequal length")
        found.append(torch.stack(rows) - vocabulary.first_visual)
    return found
