"""Documents of text and images as tokens, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.models.emu3_5.vocabulary import Vocabulary

Kind = Literal["text", "reasoning", "image reasoning", "image"]
TASKS = ("t2i", "x2i", "howto", "story", "explore", "vla")  # of the published prompts


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


def document(vocabulary: Vocabulary, words: Sequence[Tensor], codes: Sequence[Tensor]) -> Tensor:
    """A sequence of captions and their images: BOS, then words and image in turn, then EOS.

    Args:
        vocabulary: the ids.
        words: ids of text before each image, ``[W]`` each.
        codes: of each image, counted from 0, ``[h, w]`` each.

    Returns:
        ``[L]``.
    """
    parts = [words[0].new_tensor([vocabulary.bos])]
    for text, image in zip(words, codes, strict=True):
        parts += [text, image_block(vocabulary, image[None])[0]]
    return torch.cat([*parts, words[0].new_tensor([vocabulary.eos])])


# -- prompts -----------------------------------------------------------------------------------


def prompt(
    vocabulary: Vocabulary, text: str, *, task: str | None = None, images: Sequence[Tensor] = ()
) -> list[int]:
    """What the model continues.

    The published model was trained on ``You are a helpful assistant for TASK task. USER: TEXT IMAGES
    ASSISTANT:`` and the beginning of an answer (Emu3.5's generation code). A vocabulary without answers
    gets BOS, the text and the images.

    Args:
        vocabulary: the ids.
        text: of the user.
        task: one of `TASKS`; None names none.
        images: codes of the user's images, counted from 0, ``[h, w]`` each; behind the text.

    Returns:
        ids.

    Raises:
        ValueError: an unknown task, a task where there are no answers, or a text that cannot be read.
    """
    if task is not None and task.lower() not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    blocks = [token for codes in images for token in image_block(vocabulary, codes[None])[0].tolist()]
    if vocabulary.answer is None:
        if task is not None:
            raise ValueError("the prompts of this vocabulary name no task; leave task out")
        return [vocabulary.bos, *vocabulary.encode(text), *blocks]
    kind = "" if task is None else f" for {task.lower()} task"
    before, behind = f"You are a helpful assistant{kind}. USER: {text}", " ASSISTANT: "
    read = (
        [*vocabulary.encode(before), *blocks, *vocabulary.encode(behind)]
        if blocks
        else vocabulary.encode(before + behind)
    )
    return [vocabulary.bos, *read, vocabulary.answer.begin]


def unconditional_prompt(vocabulary: Vocabulary, images: Sequence[Tensor] = ()) -> list[int]:
    """The same without task and text: what classifier-free guidance leads away from.

    Args:
        vocabulary: the ids.
        images: codes of the user's images, which stay.
    """
    return prompt(vocabulary, "", images=images)


# -- reading -----------------------------------------------------------------------------------


class Part(NamedTuple):
    """A piece of a sequence.

    Attributes:
        kind: what it is.
        tokens: of an image: its codes ``[h, w]``, counted from 0; else ids ``[N]``.
    """

    kind: Kind
    tokens: Tensor


def parts_of(vocabulary: Vocabulary, tokens: Tensor) -> list[Part]:
    """Text, thoughts and images of a sequence ``[L]`` in their order, without control tokens.

    Raises:
        ValueError: an image that is cut off, whose rows differ in length, or that is not as large as it says.
    """
    v = vocabulary
    sections: dict[int, tuple[Kind, int]] = {}
    if v.reasoning is not None:
        sections[v.reasoning.begin] = ("reasoning", v.reasoning.end)
    if v.image_reasoning is not None:
        sections[v.image_reasoning.begin] = ("image reasoning", v.image_reasoning.end)
    silent = {v.pad, v.bos, v.eos, *(v.answer or ())}
    told: list[Part] = []
    text: list[int] = []
    kind: Kind = "text"
    closing: int | None = None

    def close() -> None:
        if text:
            told.append(Part(kind, tokens.new_tensor(text)))
            text.clear()

    ids, place = tokens.tolist(), 0
    while place < len(ids):
        token = ids[place]
        if token == v.image_start:
            close()
            codes, place = _image(v, tokens, place)
            told.append(Part("image", codes))
            continue
        if token in sections:
            close()
            kind, closing = sections[token]
        elif token == closing:
            close()
            kind, closing = "text", None
        elif token not in silent:
            text.append(token)
        place += 1
    close()
    return told


def images_in(vocabulary: Vocabulary, tokens: Tensor) -> list[Tensor]:
    """Codes ``[h, w]``, counted from 0, of every image in a sequence ``[L]``; raises as `parts_of`."""
    return [part.tokens for part in parts_of(vocabulary, tokens) if part.kind == "image"]


def _image(v: Vocabulary, tokens: Tensor, begin: int) -> tuple[Tensor, int]:
    """Codes of the image that begins there, and the place behind it."""
    ends = (tokens[begin:] == v.image_end).nonzero()
    if not len(ends):
        raise ValueError(f"the image that begins at token {begin} is cut off: it has no end")
    block = tokens[begin + 1 : begin + int(ends[0])]
    opened = (block == v.image_token).nonzero()
    if not len(opened):
        raise ValueError(f"the image that begins at token {begin} has no image token before its end")
    head, body = block[: int(opened[0])], block[int(opened[0]) + 1 :]
    lines = (body == v.end_of_line).nonzero()[:, 0].tolist()
    rows = list(torch.tensor_split(body, lines))
    rows = [rows[0], *(row[1:] for row in rows[1:])]
    if len({len(row) for row in rows}) != 1:
        raise ValueError(f"the image that begins at token {begin} has rows of unequal length")
    codes = torch.stack(rows) - v.first_visual
    if codes.numel() == 0 or bool(((codes < 0) | (codes >= v.visual_codes)).any()):
        raise ValueError(f"the image that begins at token {begin} has other tokens than codes in its rows")
    if v.grid_tokens(1, 1) and read_size(v, head.tolist()) != codes.shape:
        height, width = read_size(v, head.tolist())
        raise ValueError(
            f"the image that begins at token {begin} says {height}*{width}, but has"
            f" {len(codes)} rows of {codes.shape[1]} codes"
        )
    return codes, begin + int(ends[0]) + 1


def read_size(vocabulary: Any, written: Sequence[int]) -> tuple[int, int]:
    """(h, w) from the tokens of the string ``h*w``.

    Raises:
        ValueError: it is none.
    """
    digits, times = vocabulary.digit_ids, vocabulary.times_id
    text = "".join("*" if t == times else str(digits.index(t)) if t in digits else "?" for t in written)
    height, _, width = text.partition("*")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ValueError(f"an image states the size {text!r} where h*w was expected")
    return int(height), int(width)
