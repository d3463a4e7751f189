"""Where in the user's own files an error came up."""

from __future__ import annotations

import linecache
import re
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import OWN

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = ("site-packages", "dist-packages")
LONGEST = 80  # characters of a line of code that is repeated
FRAME = re.compile(r'File "([^"]+)", line (\d+), in ')  # of a traceback that is text


def place(error: BaseException | None) -> str | None:
    """The last line of the user's own that was running, as ``my_net.py, line 17: self.head(x)``.

    What a worker process hands on is read, too, and what an error was raised from.

    Args:
        error: one that was raised.

    Returns:
        None if only our code and libraries were running.
    """
    if isinstance(error, SyntaxError):
        return None  # its message says where
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        own = [(file, line) for file, line in _frames(error) if _is_own(file)]
        if own:
            return _shown(*own[-1])
        error = error.__cause__ or error.__context__
    return None


def ending(error: BaseException | None) -> str:
    """What follows the message of an error: the line of `place`, or nothing."""
    where = place(error)
    return "" if where is None else f"\n  in {where}"


def _frames(error: BaseException) -> Iterator[tuple[str, int]]:
    """Files and lines, the innermost last."""
    for frame, line in traceback.walk_tb(error.__traceback__):
        yield frame.f_code.co_filename, line
    for file, number in FRAME.findall(str(error)):
        yield file, int(number)


def _is_own(file: str) -> bool:
    path = Path(file).resolve()
    libraries = {Path(sysconfig.get_path(key)) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    ours = {ROOT / name for name in (*OWN, "fulgurite")}
    return (
        path.suffix == ".py"
        and path.is_file()
        and not set(path.parts) & set(INSTALLED)
        and not any(path.is_relative_to(folder) for folder in libraries | ours)
    )


def _shown(file: str, line: int) -> str:
    path = Path(file).resolve()
    name = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    code = linecache.getline(file, line).strip()
    code = code if len(code) <= LONGEST else f"{code[:LONGEST]}..."
    return f"{name}, line {line}" + (f": {code}" if code else "")
