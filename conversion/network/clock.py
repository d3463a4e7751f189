"""The number of time steps that all units of one converted network share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from spiking.context import Scoped

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class Steps(NamedTuple):
    """How many steps, and which of them count; see `Clock`."""

    time_steps: int
    window: int
    first: int


class Clock:
    """The number of steps, shared by all units of one converted network.

    Attributes:
        time_steps: T, the steps whose output counts.
        window: steps that the network runs in all; rehearsals come on top of T.
        first: the step at which the output begins.
    """

    def __init__(self, time_steps: int) -> None:
        self._own = Steps(time_steps, time_steps, 0)

    @property
    def now(self) -> Steps:
        """What holds for calls of this thread or task."""
        return _RUNNING.get(self) or self._own

    @property
    def time_steps(self) -> int:
        """T, the steps whose output counts."""
        return self.now.time_steps

    @property
    def window(self) -> int:
        """Steps that the network runs in all."""
        return self.now.window

    @property
    def first(self) -> int:
        """The step at which the output begins."""
        return self.now.first

    def set(self, time_steps: int, window: int, first: int) -> None:
        """Change T and what depends on it, for all calls from now on."""
        self._own = Steps(time_steps, window, first)

    def running(self, steps: int) -> AbstractContextManager[None]:
        """Within the block calls of this thread or task run ``steps`` steps, all of which count."""
        return _RUNNING.given({self: Steps(steps, steps, 0)})


_RUNNING: Scoped[Steps] = Scoped("clocks")
