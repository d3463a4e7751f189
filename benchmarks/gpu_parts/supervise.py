"""A part in a process of its own: it may crash, hang or take the device down, and the others still run."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def supervise(command: Sequence[str], seconds: float, env: Mapping[str, str]) -> str | None:
    """Run ``command`` and end it, with all that it started, when the time is up.

    Returns:
        None where it ended well, else what happened.
    """
    process = subprocess.Popen(command, env=dict(env), start_new_session=True)
    try:
        code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        return f"ended after {seconds:.0f} s"
    except BaseException:  # Ctrl-C, too, leaves nothing behind
        _end(process)
        raise
    return None if code == 0 else f"ended with status {code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)  # the group that `start_new_session` made
    process.wait()
