"""Sequences with noisy copies of their images behind them, as DiDA trains on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from zoo.models.emu3_5.dida.mask import Places

if TYPE_CHECKING:
    from collections.abc import Callable

PADDING = -1  # document of the places that only fill up rows


class Roles(NamedTuple):
    """Ids of a vocabulary that a layout needs.

    Attributes:
        image_token: opens the block of an image's codes.
        image_end: the first token behind the block.
        first_visual: the first id that is an image code; all from here on are.
    """

    image_token: int
    image_end: int
    first_visual: int


class NoisyCopies(NamedTuple):
    """The blocks of all images of a batch, gathered row by row; M is the most that a row holds.

    Attributes:
        source: index into the sequence of what each place copies, ``[B, M]``.
        places: where the copies stand, ``[B, M]``; places that only fill up belong to ``PADDING``.
        target: the clean token *behind* each copied one, which is what the copy predicts, ``[B, M]``.
        counted: whether that is an image code, which alone counts in the loss, ``[B, M]``.
    """

    source: Tensor
    places: Places
    target: Tensor
    counted: Tensor


def inside_images(tokens: Tensor, roles: Roles) -> Tensor:
    """Which tokens ``[B, L]`` belong to the block of an image: from its opening token to its last code."""
    opened = (tokens == roles.image_token).long().cumsum(-1)
    closed = (tokens == roles.image_end).long().cumsum(-1)
    return opened > closed


def noisy_copies(tokens: Tensor, documents: Tensor, positions: Tensor, roles: Roles) -> NoisyCopies:
    """Find the images of a batch and where their copies stand.

    Args:
        tokens: packed sequences, ``[B, L]``.
        documents: which document each token belongs to, ``[B, L]``.
        positions: place within the document, ``[B, L]``.
        roles: ids of the vocabulary.

    Raises:
        ValueError: a row ends within an image: the context cut it off.
    """
    inside = inside_images(tokens, roles)
    if bool(inside[:, -1].any()):
        raise ValueError(
            f"the image that row {int(inside[:, -1].nonzero()[0])} ends with is cut off: there is no end of"
            f" image (token {roles.image_end}) within {tokens.shape[1]} tokens; pack whole images, or make"
            " the context longer"
        )
    count = inside.sum(-1)
    most = int(count.max())
    # a stable sort leaves the tokens in their order
    source = torch.argsort((~inside).to(torch.uint8), dim=-1, stable=True)[:, :most]
    there = torch.arange(most, device=tokens.device) < count[:, None]
    number = (tokens == roles.image_token).long().cumsum(-1)
    begins = torch.where(tokens == roles.image_token, positions, torch.zeros_like(positions))
    start = torch.zeros_like(positions).scatter_add(1, number, begins).gather(1, number)
    places = Places(
        document=documents.gather(1, source).where(there, torch.full_like(source, PADDING)),
        position=positions.gather(1, source),
        noisy=torch.ones_like(there),
        image=number.gather(1, source),
        start=start.gather(1, source),
    )
    following = tokens.gather(1, (source + 1).clamp(max=tokens.shape[1] - 1))
    return NoisyCopies(source, places, following, there & (following >= roles.first_visual))


def clean_places(documents: Tensor, positions: Tensor) -> Places:
    """Where the tokens of ordinary sequences ``[B, L]`` stand."""
    nothing = torch.zeros_like(documents)
    return Places(documents, positions, nothing.bool(), nothing, nothing)


def joined(first: Places, second: Places) -> Places:
    """The places of ``[B, L]`` and ``[B, M]`` tokens, one behind the other."""
    return Places(*(torch.cat(pair, 1) for pair in zip(first, second, strict=True)))


def noisy_tokens(
    tokens: Tensor,
    copies: NoisyCopies,
    roles: Roles,
    corrupt: Callable[[Tensor, Tensor], Tensor],
    draws: Tensor,
) -> Tensor:
    """What stands in the copies: noise for image codes, everything else (ends of lines) as it is.

    Args:
        tokens: the clean sequences, ``[B, L]``.
        copies: their images.
        roles: ids of the vocabulary.
        corrupt: from codes ``[N]``, counted from 0, and times ``[N]`` to noisy codes ``[N]``.
        draws: the time of each image of a row, by its number: ``[B, images + 1]``.

    Returns:
        ``[B, M]``.
    """
    copied = tokens.gather(1, copies.source)
    codes = copied >= roles.first_visual
    times = draws.gather(1, copies.places.image)
    noisy = copied.clone()
    noisy[codes] = corrupt(copied[codes] - roles.first_visual, times[codes]) + roles.first_visual
    return noisy
