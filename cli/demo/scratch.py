"""A folder for dropped images that is gone when the command is, however it ends."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "fulgurite-demo-"
ENDS = ("SIGTERM", "SIGHUP")  # as a service manager, and a closed terminal, end a program


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that SIGTERM and SIGHUP delete as well; what killed programs left behind goes, too."""
    _remove_left_behind()
    with contextlib.ExitStack() as stack:
        for number in (getattr(signal, name) for name in ENDS if hasattr(signal, name)):
            stack.callback(signal.signal, number, signal.signal(number, _leave))
        path = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")
        stack.callback(shutil.rmtree, path, ignore_errors=True)
        yield Path(path)


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _remove_left_behind() -> None:
    """Delete the folders of programs that no longer run (SIGKILL, a power cut)."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        found = re.fullmatch(rf"{PREFIX}(\d+)-.*", path.name)
        if found and not _runs(int(found[1])) and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)  # those of other users stay: they may not be deleted


def _runs(process: int) -> bool:
    if os.name == "nt":  # there the call below would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True
