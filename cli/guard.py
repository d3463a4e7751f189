"""Whatever goes wrong becomes one or two lines and an exit status."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli import own_code, signals
from cli.errors import FULL, CommandError, disk_problem, fail, out_of_memory, summary

if TYPE_CHECKING:
    from collections.abc import Iterator

FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, RecursionError)  # ours


@contextmanager
def one_message() -> Iterator[None]:
    """Say in one or two lines what went wrong, and leave with status 2; by a signal with 128 + its number.

    Where code of the user's own was running, its file and line follow.

    With the variable ``FULGURITE_TRACEBACK`` errors pass unchanged. The traceback of one that is likely no
    fault of the user's is kept in a file.
    """
    try:
        yield
    except signals.Stopped as stopped:
        sys.stderr.write(f"fulgurite: {stopped}\n")
        raise
    except Exception as error:
        if (number := signals.asked()) is not None:  # workers that died of the same signal
            raise signals.Stopped(number) from error
        if os.environ.get("FULGURITE_TRACEBACK"):
            raise
        fail(_message(error) + own_code.ending(error))


@contextmanager
def short_warnings() -> Iterator[None]:
    """Show warnings as a line, without the place in our code; with ``FULGURITE_TRACEBACK`` unchanged."""
    before = warnings.formatwarning
    if not os.environ.get("FULGURITE_TRACEBACK"):
        warnings.formatwarning = _one_line
    try:
        yield
    finally:
        warnings.formatwarning = before


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    return f"fulgurite: warning: {message}\n"


def _message(error: Exception) -> str:
    if isinstance(error, CommandError | FloatingPointError):
        return summary(error)
    if (memory := out_of_memory(error)) is not None:
        return memory
    if (problem := disk_problem(error)) in FULL.values():
        return f"{problem}: {summary(error)}. Make room, then try again (a training: with --ckpt_path last)"
    if isinstance(error, FAULTS):
        kind = f"{type(error).__name__}: "
        return f"{kind}{summary(error).removeprefix(kind)}\n  the traceback is in {_kept(error)}"
    return summary(error)


def _kept(error: Exception) -> str:
    handle, name = tempfile.mkstemp(prefix="fulgurite-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
        traceback.print_exception(error, file=file)
    return name
