"""SIGTERM, SIGHUP and SIGINT end a command with status 128 + number; a training saves a checkpoint first."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

NUMBERS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name))


class Stopped(SystemExit):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}"


@dataclass(kw_only=True)
class _State:
    """Of this process, as signals are."""

    process: int | None = None  # whose signals are handled; a forked worker of a loader is another
    asked: int | None = None  # the first signal that came
    held: bool = False
    wanted: tuple[int, ...] = ()


_state = _State()


@contextmanager
def handled() -> Iterator[None]:
    """Raise `Stopped` in the main thread when a signal comes, or remember it while `hold` is in force.

    What the caller ignores (``nohup``, a job in the background of a script) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in NUMBERS}
    outer, wanted = dict(vars(_state)), tuple(n for n, h in before.items() if h not in (signal.SIG_IGN, None))
    vars(_state).update(vars(_State(process=os.getpid(), wanted=wanted)))
    _install()
    try:
        yield
    finally:
        vars(_state).update(outer)
        for number in wanted:
            signal.signal(number, before[number])


def _install() -> None:
    for number in _state.wanted:
        signal.signal(number, _handle)


def _handle(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _state.process:  # a forked worker, which its parent ends
        if number == signal.SIGTERM:
            os._exit(128 + number)
        return
    again = _state.asked is not None
    if _state.asked is None:
        _state.asked = number
    if not _state.held or (again and number == signal.SIGINT):  # Ctrl-C twice does not wait
        raise Stopped(_state.asked)


def hold() -> None:
    """Remember signals from now on instead of raising; Lightning's handlers give way to ours."""
    if _state.process == os.getpid():
        _install()
        _state.held = True


def release() -> None:
    """Raise again when a signal comes."""
    _state.held = False


def asked() -> int | None:
    """The number of the signal that came first, if one did."""
    return _state.asked
