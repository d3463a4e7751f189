"""One writer at a time in a folder."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 600.0  # seconds
HELD = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder, which ends with the process and leaves no file behind.

    Where folders cannot be locked (Windows, some network drives) there is none: of two saves at once into one
    folder the hash in the description then tells a reader.

    Yields:
        Whether the folder is still the one at this path; another writer may have renamed it meanwhile.

    Raises:
        TimeoutError: another process has been writing there for ten minutes.
    """
    if sys.platform == "win32":
        yield True
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _wait(handle, folder)
        yield _is_at(handle, folder)
    finally:
        os.close(handle)


def _is_at(handle: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.stat(folder), os.fstat(handle))
    except FileNotFoundError:
        return False


def _wait(handle: int, folder: Path) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in HELD:
                return  # a file system without locks
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process has been writing to {folder} for ten minutes") from None
            time.sleep(0.05)
        else:
            return
