"""How text becomes ids and ids text: words of a list, or the byte pairs of Qwen."""

from __future__ import annotations

import base64
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from zoo.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE = "emu3.tiktoken"
# how Qwen cuts a text before it joins bytes: every digit stands alone, so sizes are written digit by digit
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Text(Protocol):
    """Text as ids."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text among ids; others are left out."""


class Words:
    """Words with an id each.

    Args:
        words: in the order of their ids.
        first: id of the first.
    """

    def __init__(self, words: Sequence[str], first: int) -> None:
        self.words, self.first = tuple(words), first

    def encode(self, text: str) -> list[int]:
        """Ids of words.

        Raises:
            ValueError: a word that there is not.
        """
        found = text.split()
        for word in found:
            if word not in self.words:
                raise ValueError(f"this vocabulary has no word {word!r}; it has {', '.join(self.words)}")
        return [self.first + self.words.index(word) for word in found]

    def decode(self, ids: Sequence[int]) -> str:
        """The words among ``ids``."""
        numbers = [token - self.first for token in ids]
        return " ".join(self.words[n] for n in numbers if 0 <= n < len(self.words))


class BytePairs:
    """The text tokenizer of the published model: Qwen's byte pairs, through tiktoken.

    Names of control tokens within a text are text like any other: a prompt cannot begin an answer or an
    image by writing ``<|image start|>``.

    Args:
        ranks: ids of the byte pairs.
    """

    def __init__(self, ranks: dict[bytes, int]) -> None:
        try:
            import tiktoken
        except ImportError as error:
            raise ImportError(
                "the text of Emu3.5 needs tiktoken: pip install 'fulgurite[multimodal]'"
            ) from error
        self.count = len(ranks)
        self._tiktoken: Any = tiktoken.Encoding(
            "emu3_5", pat_str=PIECES, mergeable_ranks=ranks, special_tokens={}
        )

    @classmethod
    def read(cls, place: str | Path, count: int) -> BytePairs:
        """Read ``emu3.tiktoken``: a line for each byte pair, in base64, and its id.

        Args:
            place: the file, or the folder that holds it.
            count: how many byte pairs there must be: the ids below the first control token.

        Raises:
            CheckpointError: there is no such file, or it holds something else.
            ImportError: tiktoken is missing.
        """
        path = Path(place).expanduser()
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist; the tokenizer of Emu3.5's text is the file {FILE}")
        try:
            lines = [line.split() for line in path.read_bytes().splitlines() if line]
            ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
        except ValueError as error:
            raise CheckpointError(
                f"{path} is no list of byte pairs in base64 and their ids: {error}"
            ) from error
        if sorted(ranks.values()) != list(range(count)):
            raise CheckpointError(
                f"{path} has {len(ranks):,} byte pairs, Emu3.5's {FILE} has ids 0 to {count - 1:,}; "
                "download it again"
            )
        if lacking := [byte for byte in range(256) if bytes([byte]) not in ranks]:
            raise CheckpointError(f"{path} has no id for byte {lacking[0]}, so some texts could not be read")
        return cls(ranks)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, in Unicode's normal form C."""
        ids: list[int] = self._tiktoken.encode_ordinary(unicodedata.normalize("NFC", text))
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the byte pairs among ``ids``; half a character becomes a replacement mark."""
        text: str = self._tiktoken.decode(
            [token for token in ids if 0 <= token < self.count], errors="replace"
        )
        return text
