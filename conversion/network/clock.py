"""The number of time steps that all units of one converted network share."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clock:
    """The number of steps, shared by all units of one converted network.

    Attributes:
        time_steps: T, the steps whose output counts.
        window: steps that the network runs in all; rehearsals come on top of T.
        first: the step at which the output begins.
    """

    def __init__(self, time_steps: int) -> None:
        self.time_steps = self.window = time_steps
        self.first = 0

    def set(self, time_steps: int, window: int, first: int) -> None:
        """Change T and what depends on it."""
        self.time_steps, self.window, self.first = time_steps, window, first

    @contextmanager
    def restored(self) -> Iterator[Clock]:
        """Within the block the clock may be set at will; behind it, it is as before."""
        before = self.time_steps, self.window, self.first
        try:
            yield self
        finally:
            self.set(*before)
