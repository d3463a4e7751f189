"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """Open a file beside ``path`` and put it in its place when it is complete and on the disk.

    The name of the temporary file is fixed, so that what a killed process left is overwritten.

    Args:
        path: the file to replace; until the end it keeps its old content. Its folder is made if absent.
        mode: of opening.
        **options: further arguments of ``open``.

    Raises:
        OSError: the disk is full or not writable; ``path`` is what it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    with _cleared(unfinished, path):
        with open(unfinished, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        sync_folder(path.parent)


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path beside ``path`` for a library that opens files itself; takes its place when the block ends well.

    It keeps the suffix, by which such libraries go. Otherwise as `replacing`.

    Args:
        path: the file to replace, in a folder that exists.

    Raises:
        OSError: the disk is full or not writable; ``path`` is what it was.
    """
    unfinished = path.with_name(f".unfinished.{path.name}")
    with _cleared(unfinished, path):
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        sync_folder(path.parent)


@contextlib.contextmanager
def _cleared(unfinished: Path, path: Path) -> Iterator[None]:
    """Remove what is unfinished if the block fails, and have a full disk name the file that was to be."""
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()  # gives the space of a full disk back at once
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)  # writing has only a handle
        raise


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can do that."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """``text`` in UTF-8, whole or not at all; see `replacing`."""
    with replacing(path, "w", encoding="utf-8") as file:
        file.write(text)


def write_bytes(path: Path, content: bytes) -> None:
    """``content``, whole or not at all; see `replacing`."""
    with replacing(path) as file:
        file.write(content)
