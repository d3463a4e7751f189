"""Images that could not be read among those to predict."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from torch import Tensor


class UnreadError(RuntimeError):
    """Some images could not be read; the others have their predictions."""


class Unread:
    """Passes over the samples of a batch in whose path's place the data set put an error.

    One damaged file among many costs its own prediction only: a warning names it at once, and the command
    fails when all others are done.

    Attributes:
        count: of them so far, in this process.
        read: how many were read.
    """

    def __init__(self) -> None:
        self.count = self.read = 0

    def leave_out(self, paths: Iterable[object], outputs: Iterable[Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Paths and outputs of those that were read, of one batch.

        Args:
            paths: of its samples, or the error instead.
            outputs: of its samples, ``[B, ...]``.
        """
        for path, output in zip(paths, outputs, strict=True):
            if isinstance(path, Exception):
                self.count += 1
                warnings.warn(str(path), stacklevel=2)
            else:
                self.read += 1
                yield str(path), output

    def check(self, output: Path) -> None:
        """Fail if there were any.

        Args:
            output: what has the predictions.

        Raises:
            UnreadError: there were.
        """
        if self.count and not self.read:
            raise UnreadError(f"none of {self.count} images could be read, so {output} is not written")
        if self.count:
            total = self.count + self.read
            raise UnreadError(f"{self.count} of {total} images could not be read; {output} has the others")
