"""All ids of a vocabulary and what they mean; no other file knows one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from zoo.models.emu3_5.text import Words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.models.emu3_5.text import Text


class Section(NamedTuple):
    """The two tokens around a part of an answer.

    Attributes:
        begin: opens it.
        end: closes it.
    """

    begin: int
    end: int


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
        end_of_frame: ends a frame of a video.
        timestamp: stands before the time of a frame.
        answer: around what the model answers; prompts end with its beginning.
        reasoning: around thoughts on a whole answer.
        image_reasoning: around thoughts on one image.
        text: reads and writes text; None: only ids are known.
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
    times_id: int | None = None
    end_of_frame: int | None = None
    timestamp: int | None = None
    answer: Section | None = None
    reasoning: Section | None = None
    image_reasoning: Section | None = None
    text: Text | None = None

    @property
    def size(self) -> int:
        """Number of all ids."""
        return self.first_visual + self.visual_codes

    def grid_tokens(self, height: int, width: int) -> tuple[int, ...]:
        """The size of an image as text, nothing where sizes are not written."""
        if self.times_id is None:
            return ()
        text = f"{height}*{width}"
        return tuple(self.times_id if c == "*" else self.digit_ids[int(c)] for c in text)

    def encode(self, text: str) -> list[int]:
        """Ids of a text.

        Raises:
            ValueError: a word that there is not, or the vocabulary reads no text.
        """
        return self._text().encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text among ``ids``; control tokens and image codes are left out.

        Raises:
            ValueError: the vocabulary writes no text.
        """
        return self._text().decode(ids)

    def _text(self) -> Text:
        if self.text is None:
            raise ValueError(
                "this vocabulary knows ids only: the text of the published model is read with its file"
                " emu3.tiktoken, which zoo.models.emu3_5.load_emu3_5(FOLDER, text=PLACE) takes"
            )
        return self.text


ENDOFTEXT = 151_643  # the first id behind Qwen's byte pairs; then <|im_start|> and <|im_end|>
EXTRAS = ENDOFTEXT + 3  # <|extra_0|> to <|extra_204|>
IMAGE = EXTRAS + 205  # <|image token|>, <|image start|>, <|image end|>, then the image codes


def emu3_5_vocabulary(visual_codes: int = 131_072, text: Text | None = None) -> Vocabulary:
    """Of the published model: 151,854 ids of text and control, then the image codes."""

    def extra(first: int) -> Section:
        return Section(EXTRAS + first, EXTRAS + first + 1)

    return Vocabulary(
        pad=ENDOFTEXT,
        bos=EXTRAS + 203,
        eos=EXTRAS + 204,
        image_token=IMAGE,
        image_start=IMAGE + 1,
        image_end=IMAGE + 2,
        end_of_line=EXTRAS + 200,
        end_of_frame=EXTRAS + 201,
        timestamp=EXTRAS + 202,
        answer=extra(100),
        reasoning=extra(60),
        image_reasoning=extra(50),
        first_visual=IMAGE + 3,
        visual_codes=visual_codes,
        # byte pairs begin with the printable bytes in their order: "!" is 0, "*" 9, "0" 15
        digit_ids=tuple(range(ord("0") - ord("!"), ord("9") - ord("!") + 1)),
        times_id=ord("*") - ord("!"),
        text=text,
    )


def tiny_vocabulary(visual_codes: int = 9) -> Vocabulary:
    """Of the small models: eleven words, sizes of images are not written."""
    words = Words((*"0123456789", "digit"), first=7)
    return Vocabulary(
        pad=0,
        bos=1,
        eos=2,
        image_start=3,
        image_end=4,
        image_token=5,
        end_of_line=6,
        first_visual=7 + len(words.words),
        visual_codes=visual_codes,
        text=words,
    )
