"""The configurations that come with the package, found by name from any folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OPTIONS = ("-c", "--config")
HERE = Path(__file__).resolve().parent
FOLDERS = (HERE / "configs", HERE.parent / "configs")  # in an installed wheel; in a checkout


COMMENT = re.compile(
    r"(?P<what>.*?)\s*Published: (?P<published>.*?)\.?"
    r"\s+Ours: (?P<measured>.*?)(?:\.\s+(?P<remarks>[A-Z0-9].*))?$"
)


@dataclass(frozen=True, kw_only=True)
class FirstComment:
    """What a shipped file says of itself: the published number and ours are kept apart.

    Attributes:
        what: what the run is of.
        published: the paper's number.
        measured: ours.
        remarks: what else the comment says.
    """

    what: str
    published: str = "-"
    measured: str = "-"
    remarks: str = ""


def read_comment(path: Path) -> FirstComment:
    """Read the lines of a YAML file before its first value."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    text = " ".join(lines)
    found = COMMENT.match(text)
    if found is None:
        return FirstComment(what=text)
    parts = found.groupdict("")
    return FirstComment(
        what=parts["what"].rstrip("."),
        published=parts["published"],
        measured=parts["measured"].rstrip("."),
        remarks=parts["remarks"],
    )


@cache
def shipped_folder() -> Path | None:
    """The folder that holds ``METHOD/DATASET.yaml``; None if the installation has none."""
    return next((folder for folder in FOLDERS if folder.is_dir()), None)


def shipped_names() -> list[str]:
    """All names that `find_config` knows, such as ``stbp/mnist5k``."""
    return list(_names_in(shipped_folder()))


@cache
def _names_in(folder: Path | None) -> tuple[str, ...]:
    paths = [] if folder is None else folder.rglob("*.yaml")
    return tuple(sorted(path.relative_to(folder).with_suffix("").as_posix() for path in paths if folder))


def find_config(name: str) -> Path | None:
    """Return the shipped file of that name; None if there is none.

    Args:
        name: ``METHOD/DATASET``, with or without ``configs/`` in front and ``.yaml`` behind.
    """
    folder = shipped_folder()
    plain = name.removeprefix("configs/").removesuffix(".yaml")
    if folder is None or plain not in shipped_names():
        return None
    return folder / f"{plain}.yaml"


def config_values(words: Sequence[str]) -> list[str]:
    """What stands behind each ``--config``."""
    following = zip(words, [*words[1:], ""], strict=False)  # no words have nothing behind them
    typed = [(word.partition("="), after) for word, after in following]
    return [(value if equals else after) for (option, equals, value), after in typed if option in OPTIONS]


def resolve_configs(words: Sequence[str]) -> list[str]:
    """Replace names of shipped files behind ``--config`` by their paths; existing files come first."""
    return list(_resolved(words))


def _resolved(words: Sequence[str]) -> Iterator[str]:
    before = ""
    for word in words:
        option, equals, value = word.partition("=")
        if before in OPTIONS:
            yield _path(word)
        elif equals and option in OPTIONS:
            yield f"{option}={_path(value)}"
        else:
            yield word
        before = word


def _path(value: str) -> str:
    found = None if Path(value).exists() else find_config(value)
    return value if found is None else str(found)
