"""One run at a time in a folder: a lock beside it that says who holds it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cli.errors import CommandError
from cli.processes import is_running

YOUNG = 60.0  # seconds for which a lock that cannot be read may still be in the making


class InUseError(CommandError):
    """Another run writes to the folder."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that holds a lock.

    Attributes:
        pid: its number.
        host: its machine.
        started: when it started, in the system's own count, which tells it from a later one of its number.
    """

    pid: int
    host: str
    started: str

    @property
    def is_gone(self) -> bool:
        """Whether it has ended for certain; of other machines nobody here knows."""
        if self.host != socket.gethostname():
            return False
        # what it started as may be hidden, of processes of other users
        return not is_running(self.pid) or _started(self.pid) not in ("", self.started)


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _me() -> Holder:
    return Holder(pid=os.getpid(), host=socket.gethostname(), started=_started(os.getpid()))


def lock_of(folder: Path) -> Path:
    """The lock's file: beside the folder, which may be renamed while it is held."""
    return folder.parent / f".{folder.name}.lock"


_held: set[Path] = set()


def release_all() -> None:
    """Give back all locks of this process."""
    for folder in list(_held):
        release(folder)


def acquire(folder: Path) -> None:
    """Take the folder's lock, or heal one whose process has died on this machine.

    The lock comes into being by a hard link, which is atomic on network file systems, too.

    Raises:
        InUseError: another process holds it; the message names it.
        OSError: the folder's parent cannot be written to.
    """
    path, me = lock_of(folder), _me()
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = path.with_name(f"{path.name}.{me.host}.{me.pid}")
    mine.write_text(json.dumps(asdict(me)))
    try:
        for _ in range(10):
            if _linked(mine, path):
                _held.add(folder.absolute())
                return
            holder = _read(path)
            if holder == me:
                return
            if holder is not None and not holder.is_gone:
                raise InUseError(
                    f"{folder} is in use by process {holder.pid} on {holder.host}; wait for it, or"
                    f" choose another folder\n  (if that process has ended, delete {path})"
                )
            if holder is None and not _is_old(path):
                time.sleep(0.1)
                continue
            _remove(path, holder, mine)
    finally:
        mine.unlink(missing_ok=True)
    raise InUseError(f"{folder} is in use: {path} cannot be taken")


def release(folder: Path) -> None:
    """Give the lock back, if this process holds it."""
    path = lock_of(folder)
    _held.discard(folder.absolute())
    if _read(path) == _me():
        with contextlib.suppress(OSError):
            path.unlink()


def _linked(mine: Path, path: Path) -> bool:
    try:
        os.link(mine, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        try:
            with path.open("x") as file:
                file.write(mine.read_text())
        except FileExistsError:
            return False
    return True


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > YOUNG
    except OSError:
        return False  # it has just gone


def _remove(path: Path, stale: Holder | None, mine: Path) -> None:
    """Take a stale lock away; one that another process has put there meanwhile goes back."""
    away = mine.with_name(f"{mine.name}.stale")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, away)
        if _read(away) != stale:
            _linked(away, path)
        away.unlink()
