"""Which token may come next: a finite state machine that lets every image be read back.

Outside of images come text and control tokens. An image is its start, the string ``h*w`` where the vocabulary
writes one, the image token, h rows of w codes with an end of line between them, and its end (Emu3.5, arXiv
2510.26583; the rules are those of its generation code).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from zoo.models.emu3_5.sequences import read_size

if TYPE_CHECKING:
    from zoo.models.emu3_5.vocabulary import Vocabulary

SMALLEST = 10  # sides that a model chooses itself have two digits


class State(NamedTuple):
    """Where a sequence stands.

    Attributes:
        phase: what comes next.
        place: how many tokens of this phase there are already.
        grid: (h, w) of the image, where it is known.
    """

    phase: Literal["text", "size", "codes"]
    place: int
    grid: tuple[int, int] | None = None


def block_length(grid: tuple[int, int]) -> int:
    """Tokens of an image between its image token and its end: h rows of w codes, h - 1 ends of lines."""
    height, width = grid
    return height * (width + 1) - 1


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """The rules of one vocabulary.

    Attributes:
        vocabulary: its ids.
        grid: (h, w) that every image gets; None lets the model write sides of two digits.
        limit: most tokens of a sequence; no image is begun that would not end within it.

    Raises:
        ValueError: no grid, and the vocabulary does not write sizes.
    """

    vocabulary: Vocabulary
    grid: tuple[int, int] | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.grid is None and not self.vocabulary.grid_tokens(SMALLEST, SMALLEST):
            raise ValueError(
                "this vocabulary does not write the sizes of images: a grid (h, w) must be given"
            )

    def state(self, tokens: Tensor) -> State:
        """Where the sequence ``[L]`` stands.

        Raises:
            ValueError: an image in it has no readable size.
        """
        v = self.vocabulary
        begun, ended = _last(tokens, v.image_start), _last(tokens, v.image_end)
        if begun <= ended:
            return State("text", 0)
        opened = _last(tokens, v.image_token)
        if opened < begun:
            return State("size", len(tokens) - 1 - begun, self.grid)
        grid = self.grid or read_size(v, tokens[begun + 1 : opened].tolist())
        return State("codes", len(tokens) - 1 - opened, grid)

    def allowed(self, tokens: Tensor) -> Tensor:
        """Which ids may follow the sequence ``[L]``: bool ``[V]``."""
        v = self.vocabulary
        state = self.state(tokens)
        mask = torch.zeros(v.size, dtype=torch.bool, device=tokens.device)
        if state.phase == "text":
            mask[: v.first_visual] = True
            mask[[v.image_token, v.image_end, v.end_of_line, v.pad, v.bos]] = False
            mask[v.image_start] = self.fits(len(tokens), self.grid or (SMALLEST, SMALLEST))
        elif state.phase == "size":
            mask[self._size(tokens, state)] = True
        else:
            assert state.grid is not None
            self._allow_codes(mask, state.place, state.grid)
        return mask

    def needed(self, grid: tuple[int, int]) -> int:
        """Tokens of a whole image, from its start to its end."""
        return 1 + len(self.vocabulary.grid_tokens(*grid)) + 1 + block_length(grid) + 1

    def fits(self, length: int, grid: tuple[int, int]) -> bool:
        """Whether an image can be written behind ``length`` tokens."""
        return self.limit is None or length + self.needed(grid) <= self.limit

    def opens(self, tokens: Tensor) -> bool:
        """Whether the image token is what must follow."""
        allowed = self.allowed(tokens)
        return bool(allowed[self.vocabulary.image_token]) and int(allowed.sum()) == 1

    def _allow_codes(self, mask: Tensor, place: int, grid: tuple[int, int]) -> None:
        v = self.vocabulary
        if place >= block_length(grid):
            mask[v.image_end] = True
        elif place % (grid[1] + 1) == grid[1]:
            mask[v.end_of_line] = True
        else:
            mask[v.first_visual : v.first_visual + v.visual_codes] = True

    def _size(self, tokens: Tensor, state: State) -> list[int]:
        """Ids that may go on with the string ``h*w``."""
        v, place = self.vocabulary, state.place
        if self.grid is not None or v.times_id is None:
            written = v.grid_tokens(*self.grid) if self.grid is not None else ()
            return [written[place]] if place < len(written) else [v.image_token]
        if place in (2, 5):
            return [v.times_id] if place == 2 else [v.image_token]
        begun = len(tokens) - place
        digits = [v.digit_ids.index(token) for token in tokens[begun:].tolist() if token in v.digit_ids]
        shortest = begun - 1

        def possible(digit: int) -> bool:
            sides = [*digits, digit]
            height = 10 * sides[0] + (sides[1] if len(sides) > 1 else 0)
            width = 10 * sides[2] + (sides[3] if len(sides) > 3 else 0) if len(sides) > 2 else SMALLEST
            return min(height, width) >= SMALLEST and self.fits(shortest, (height, width))

        return [v.digit_ids[digit] for digit in range(10) if possible(digit)]


def _last(tokens: Tensor, wanted: int) -> int:
    """Index of the last such token, -1 if there is none."""
    found = (tokens == wanted).nonzero()
    return int(found[-1]) if len(found) else -1
