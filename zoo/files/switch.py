"""From the old files of a folder to new ones: by one rename, and touching nothing that we did not write.

New files are written into ``.saving`` and brought beside the old ones under names that hold their hash
(`zoo.files.layout.pending`). Renaming ``config.json`` is the switch: it records those hashes, so whoever
reads it finds the new files, and before it the old ones. Then the files get their own names. A process that
is killed leaves ``.saving`` with a journal, by which the next save takes back what was not switched and
finishes what was.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from zoo.errors import CheckpointError
from zoo.files.atomic import sync_folder, write_text
from zoo.files.formats.json_file import read_json
from zoo.files.layout import (
    CONFIG_FILE,
    FIGURES,
    INDEX_FILE,
    PART,
    SAVING,
    WEIGHTS_FILE,
    check_shard_names,
    pending,
    sha256_of,
)

if TYPE_CHECKING:
    from pathlib import Path

JOURNAL = "journal.json"


@dataclass(frozen=True, kw_only=True)
class Switch:
    """Files by name, with their SHA-256.

    Attributes:
        new: those that come, without the description.
        old: those that were written by us and may go, as they were written.
        config: hash of the new description.
    """

    new: Mapping[str, str]
    old: Mapping[str, str] = field(default_factory=dict)
    config: str = ""


def written_by_us(target: Path) -> dict[str, str]:
    """What the description in a folder says that we wrote there; nothing if there is none of ours."""
    try:
        content = read_json(target / CONFIG_FILE, "model description")
    except (CheckpointError, OSError):
        return {}
    own = content.get(PART) if isinstance(content, dict) else None
    if not isinstance(own, dict):
        return {}
    told = own.get("files")
    found = {str(k): str(v) for k, v in told.items()} if isinstance(told, dict) else {}
    found[CONFIG_FILE] = ""
    main = INDEX_FILE if (target / INDEX_FILE).is_file() else WEIGHTS_FILE
    found[main] = str(own.get("sha256") or "")
    if main == INDEX_FILE:
        with contextlib.suppress(CheckpointError):
            found |= check_shard_names(target / INDEX_FILE)
    return {name: sha256 for name, sha256 in found.items() if _is_plain(name)}


def refuse_foreign(target: Path, new: Mapping[str, str], old: Mapping[str, str]) -> None:
    """Refuse to replace files that we did not write, or that were changed since.

    Args:
        target: the folder.
        new: files that come, with their hashes; empty where they are not known yet.
        old: of `written_by_us`.

    Raises:
        FileExistsError: there is one.
    """
    for name, sha256 in {CONFIG_FILE: "", **new}.items():
        path = target / name
        if path.parent != target and (path.parent.is_symlink() or path.parent.is_file()):
            path = path.parent
        if not os.path.lexists(path) or _is_ours(path, old.get(name)):
            continue
        if path.is_symlink() or not path.is_file() or not sha256 or sha256_of(path) != sha256:
            raise FileExistsError(
                f"{path} was not written by zoo.save, or was changed since; nothing was replaced:"
                " move it away, or save into another folder"
            )


def switch(staging: Path, target: Path, plan: Switch) -> None:
    """Bring new files beside the old ones and go over to them.

    Raises:
        OSError: a file could not be moved; `recover` takes back what was.
    """
    write_text(staging / JOURNAL, json.dumps(asdict(plan)))
    for name, sha256 in plan.new.items():
        place = target / pending(name, sha256)
        place.parent.mkdir(exist_ok=True)
        os.replace(staging / name, place)
    sync_folder(target)
    os.replace(staging / CONFIG_FILE, target / CONFIG_FILE)
    sync_folder(target)


def recover(target: Path) -> None:
    """Finish, or take back, what a save left that was killed; and what the present one leaves."""
    staging = target / SAVING
    if not staging.is_dir() or staging.is_symlink():
        return
    plan = _journal(staging)
    if plan is not None and is_switched(target, plan):
        _finish(target, plan)
    elif plan is not None:
        for name, sha256 in plan.new.items():
            (target / pending(name, sha256)).unlink(missing_ok=True)
        _drop_if_empty(target / FIGURES)
    shutil.rmtree(staging)


def is_switched(target: Path, plan: Switch) -> bool:
    """Whether the description in a folder is the new one."""
    return (target / CONFIG_FILE).is_file() and sha256_of(target / CONFIG_FILE) == plan.config


def _finish(target: Path, plan: Switch) -> None:
    """What was there makes way, unless somebody has changed it, and the new files get their names."""
    for name in plan.old:
        if name not in plan.new and name != CONFIG_FILE and _is_ours(target / name, plan.old[name]):
            (target / name).unlink(missing_ok=True)
    for name, sha256 in plan.new.items():
        waiting, path = target / pending(name, sha256), target / name
        if not waiting.is_file():
            continue
        if os.path.lexists(path) and not _is_ours(path, plan.old.get(name)) and sha256_of(path) != sha256:
            waiting.unlink()  # somebody wrote one of the name meanwhile
        else:
            os.replace(waiting, path)
    _drop_if_empty(target / FIGURES)
    sync_folder(target)


def _journal(staging: Path) -> Switch | None:
    try:
        content = read_json(staging / JOURNAL, "journal")
        new, old = ({str(k): str(v) for k, v in content[part].items()} for part in ("new", "old"))
        if not all(map(_is_plain, [*new, *old])):
            return None
        return Switch(new=new, old=old, config=str(content["config"]))
    except (CheckpointError, OSError, KeyError, TypeError, AttributeError):
        return None


def _is_plain(name: str) -> bool:
    """Whether a name is one of a file in the folder, or in its figures."""
    parts = name.split("/")
    inside = len(parts) == 1 or (len(parts) == 2 and parts[0] == FIGURES)
    return inside and not any(part in ("", ".", "..") or "\\" in part or ":" in part for part in parts)


def _is_ours(path: Path, sha256: str | None) -> bool:
    """Whether a file is as we wrote it; of weights and descriptions, whether they say so themselves."""
    if path.is_symlink() or not path.is_file():
        return False
    if path.stat().st_size == 0:
        return True
    if path.suffix == ".safetensors":
        with path.open("rb") as file:  # the metadata comes first; a file that was cut off has it, too
            if f'"{PART}"'.encode() in file.read(1 << 16):
                return True
    if path.name in (CONFIG_FILE, INDEX_FILE):
        return sha256 is not None
    return bool(sha256) and sha256_of(path) == sha256


def _drop_if_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        with contextlib.suppress(OSError):
            folder.rmdir()
