"""The state that `spiking.streaming` carries from one call to the next."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spiking.context import Scoped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn


@dataclass(kw_only=True)
class Stream:
    """What one unit remembers, and how its steps look."""

    label: str
    state: Any = None
    shape: tuple[int, ...] | None = None  # [B, ...] of the steps so far

    def check(self, unit: nn.Module, x: Tensor) -> None:
        """Whether ``x [T, B, ...]`` goes on with the sequence that has begun.

        Raises:
            RuntimeError: the unit was put into training mode.
            ValueError: other steps than before.
        """
        if unit.training:
            raise RuntimeError(
                f"{self.label} was put into training mode inside a streaming block; leave it first"
            )
        step = tuple(x.shape[1:])
        if self.shape is not None and step != self.shape:
            raise ValueError(
                f"{self.label} received steps [B, ...] = {step} after steps {self.shape} in the same stream;"
                " leave the streaming block and enter it again for another batch size or map"
            )


STREAMS: Scoped[Stream] = Scoped("streams")


@dataclass(kw_only=True, eq=False)
class Session:
    """One streaming block. A call counts as a whole or not at all.

    Attributes:
        streams: by unit.
        before: states and shapes as they were when the running call began; what an interrupted call leaves.
        whole: whether the calls inside are parts of one that `as_one` has begun.
    """

    streams: dict[nn.Module, Stream]
    before: list[tuple[Any, Any]] | None = field(default=None, init=False)
    whole: bool = field(default=False, init=False)

    def begin(self, *_: Any) -> None:
        """A call begins; if the last one never ended, it is undone."""
        if self.whole:
            return
        if self.before is not None:
            for stream, (state, shape) in zip(self.streams.values(), self.before, strict=True):
                stream.state, stream.shape = state, shape
        self.before = [(stream.state, stream.shape) for stream in self.streams.values()]

    def end(self, *_: Any) -> None:
        """The call has ended well."""
        if not self.whole:
            self.before = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """The block in which the units stream."""
        with STREAMS.given(self.streams), SESSIONS.given(dict.fromkeys(self.streams, self)):
            yield


SESSIONS: Scoped[Session] = Scoped("sessions")


def sessions(units: Iterator[nn.Module]) -> list[Session]:
    """The blocks in which any of ``units`` streams."""
    return list({id(s): s for s in map(SESSIONS.get, units) if s is not None}.values())
