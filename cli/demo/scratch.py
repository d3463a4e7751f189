"""A folder for dropped images that is gone when the command is, however it ends."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cli.processes import is_running

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "fulgurite-demo-"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that is deleted behind the block; what killed programs left behind goes, too."""
    _remove_left_behind()
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _remove_left_behind() -> None:
    """Delete the folders of programs that no longer run (SIGKILL, a power cut)."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        found = re.fullmatch(rf"{PREFIX}(\d+)-.*", path.name)
        if found and not is_running(int(found[1])) and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)  # those of other users stay: they may not be deleted
