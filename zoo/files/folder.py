"""A folder with weights, description, card and figures: whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.files.alone import alone_in
from zoo.files.atomic import sync_folder, write_bytes
from zoo.files.card import write_card
from zoo.files.layout import (
    CARD_FILE,
    CONFIG_FILE,
    FIGURES,
    INDEX_FILE,
    SAVING,
    SETTINGS_FILE,
    WEIGHTS_FILE,
    sha256_of,
)
from zoo.files.switch import Switch, is_switched, recover, refuse_foreign, switch, written_by_us
from zoo.files.tensors import MAX_SHARD, write_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from zoo.files.description import Description


@dataclass(frozen=True, kw_only=True)
class Content:
    """What goes into a folder.

    Attributes:
        description: of the network, with its record; the hashes of all files are added here.
        state: tensors by name.
        figures: PNG files.
        settings: of the run, as text.
        max_shard_size: weights above it go into several files with an index.
        compact: see `zoo.files.tensors.write_weights`.
    """

    description: Description
    state: Mapping[str, Tensor]
    figures: Sequence[Path] = ()
    settings: str | None = None
    max_shard_size: int | str = MAX_SHARD
    compact: bool = False

    @property
    def beside(self) -> dict[str, str]:
        """Files beside the weights, and their hashes; that of the card is not known yet."""
        found = {CARD_FILE: ""}
        if self.settings is not None:
            found[SETTINGS_FILE] = hashlib.sha256(self.settings.encode()).hexdigest()
        for image in self.figures:
            name = f"{FIGURES}/{image.name}"
            if name in found:
                raise ValueError(f"two figures are called {image.name}; rename one")
            found[name] = sha256_of(image)
        return found


def write_folder(target: Path, content: Content) -> None:
    """Write aside first, and go over to what is whole by one rename; see `zoo.files.switch`.

    A folder that is not there yet appears with everything in it. In one that is there, files that we did not
    write stay as they are; if one of them has a name that is needed, nothing is written.

    Raises:
        FileExistsError: a file that we did not write, or that was changed since, is in the way.
        OSError: the disk is full or not writable; the message says whether anything has changed.
    """
    beside = content.beside
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        done = False
        while not done:  # somebody else may make or move the folder in between
            done = _replace(target, content, beside) if target.is_dir() else _create(target, content)
    except (FileExistsError, _UntidyError):
        raise
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        raise OSError(
            error.errno, f"could not save to {target}: {reason}; what was there is unchanged"
        ) from error


def tidy(folder: Path) -> None:
    """Finish, or take back, what a save left in a folder that was killed.

    Raises:
        OSError: the folder is not writable.
    """
    if (folder / SAVING).is_dir():
        with alone_in(folder) as here:
            if here:
                recover(folder)


class _UntidyError(OSError):
    """The new files are in place, but older ones could not be taken away."""


def _create(target: Path, content: Content) -> bool:
    """The folder appears by one rename; False if there is one by then."""
    staging = target.with_name(f".{target.name}{SAVING}")
    staging.mkdir(exist_ok=True)
    with alone_in(staging) as here:
        if not here:
            return False
        if target.exists():
            shutil.rmtree(staging)
            return False
        try:
            _clear(staging)  # of a process that was killed
            _write(staging, content)
            sync_folder(staging)
            os.rename(staging, target)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        sync_folder(target.parent)
    return True


def _replace(target: Path, content: Content, beside: Mapping[str, str]) -> bool:
    """New files in the place of ours; False if the folder is gone."""
    with alone_in(target) as here:
        if not here:
            return False
        recover(target)
        old = written_by_us(target)
        refuse_foreign(target, {**dict.fromkeys(_weight_names(target), ""), **beside}, old)
        staging = target / SAVING
        plan = Switch(new={}, old=old)
        try:
            staging.mkdir()
            new = _write(staging, content)
            plan = Switch(new=new, old=old, config=sha256_of(staging / CONFIG_FILE))
            refuse_foreign(target, new, old)
            switch(staging, target, plan)
            recover(target)
        except BaseException as error:
            if not is_switched(target, plan):
                recover(target)
            elif isinstance(error, OSError):
                text = f"{target} holds the new network, but is not tidied up ({error}); saving again does it"
                raise _UntidyError(error.errno, text) from error
            raise
    return True


def _weight_names(target: Path) -> list[str]:
    """Weights that are there, whose names the new ones may need."""
    return [name for name in (WEIGHTS_FILE, INDEX_FILE) if os.path.lexists(target / name)]


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _write(staging: Path, content: Content) -> dict[str, str]:
    """All files; their hashes by name, apart from that of the description."""
    described = content.description
    main, weights = write_weights(
        staging, content.state, described.architecture, content.max_shard_size, content.compact
    )
    described = replace(described, record=replace(described.recorded, sha256=weights[main]))
    for image in content.figures:
        write_bytes(staging / FIGURES / image.name, image.read_bytes())
    size = sum(p.stat().st_size for p in staging.glob("*.safetensors"))
    card = write_card(described, size=size, figures=sorted(p.name for p in content.figures))
    write_bytes(staging / CARD_FILE, card.encode())
    if content.settings is not None:
        write_bytes(staging / SETTINGS_FILE, content.settings.encode())
    files = {name: sha256_of(staging / name) for name in content.beside}
    described = replace(described, record=replace(described.recorded, files=files))
    write_bytes(staging / CONFIG_FILE, described.to_json())
    return {**weights, **files}
