"""Whether a process of this machine still runs."""

from __future__ import annotations

import os


def is_running(pid: int) -> bool:
    """Whether there is a process of this number; yes where it cannot be asked (Windows)."""
    if os.name == "nt":  # there the call below would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True
