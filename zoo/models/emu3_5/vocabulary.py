"""All ids of a vocabulary and what they mean; no other file knows one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Text, control tokens and image codes under one numbering (Emu3.5, arXiv 2510.26583).

    Attributes:
        pad: fills up rows.
        bos: begins a sequence.
        eos: ends it.
        image_start: begins an image; its size ``h*w`` follows as text where the vocabulary has digits.
        image_token: stands between the size and the codes.
        image_end: ends an image.
        end_of_line: stands between two rows of codes.
        first_visual: image code j has the id ``first_visual + j``.
        visual_codes: number of image codes.
        digit_ids: ids of the digits 0 to 9; empty where sizes are not written.
        times_id: id of ``*``.
        words: words that have one id each, from ``first_word`` on; empty where a tokenizer reads text.
        first_word: id of the first of them.
    """

    pad: int
    bos: int
    eos: int
    image_start: int
    image_token: int
    image_end: int
    end_of_line: int
    first_visual: int
    visual_codes: int
    digit_ids: tuple[int, ...] = ()
    times_id: int = -1
    words: tuple[str, ...] = ()
    first_word: int = 0

    @property
    def size(self) -> int:
        """Number of all ids."""
        return self.first_visual + self.visual_codes

    def grid_tokens(self, height: int, width: int) -> tuple[int, ...]:
        """The size of an image as text, nothing where sizes are not written."""
        if not self.digit_ids:
            return ()
        text = f"{height}*{width}"
        return tuple(self.times_id if c == "*" else self.digit_ids[int(c)] for c in text)

    def encode(self, text: str) -> list[int]:
        """Ids of words.

        Raises:
            ValueError: a word that there is not.
        """
        found = text.split()
        for word in found:
            if word not in self.words:
                raise ValueError(f"this vocabulary has no word {word!r}; it has {', '.join(self.words)}")
        return [self.first_word + self.words.index(word) for word in found]

    def decode(self, ids: Sequence[int]) -> str:
        """The words among ``ids``; control tokens and image codes are left out."""
        numbers = [token - self.first_word for token in ids]
        return " ".join(self.words[n] for n in numbers if 0 <= n < len(self.words))


def emu3_5_vocabulary(visual_codes: int = 131_072) -> Vocabulary:
    """Of the published model: 151,854 ids of text and control, then the image codes."""
    return Vocabulary(
        pad=151_643,
        bos=151_849,
        eos=151_850,
        image_start=151_852,
        image_token=151_851,
        image_end=151_853,
        end_of_line=151_846,
        first_visual=151_854,
        visual_codes=visual_codes,
        digit_ids=tuple(range(15, 25)),
        times_id=9,
    )


def tiny_vocabulary(visual_codes: int = 9) -> Vocabulary:
    """Of the small models: eleven words, sizes of images are not written."""
    words = (*"0123456789", "digit")
    return Vocabulary(
        pad=0,
        bos=1,
        eos=2,
        image_start=3,
        image_end=4,
        image_token=5,
        end_of_line=6,
        first_visual=7 + len(words),
        visual_codes=visual_codes,
        words=words,
        first_word=7,
    )
