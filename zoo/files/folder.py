"""A folder with weights, description, card and figures: whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.files.atomic import write_bytes
from zoo.files.card import write_card
from zoo.files.layout import (
    CARD_FILE,
    CONFIG_FILE,
    FIGURES,
    INDEX_FILE,
    SETTINGS_FILE,
    WEIGHTS_FILE,
    sha256_of,
)
from zoo.files.tensors import MAX_SHARD, write_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from zoo.files.description import Description


@dataclass(frozen=True, kw_only=True)
class Content:
    """What goes into a folder.

    Attributes:
        description: of the network, with its record; the hash of the weights is added here.
        state: tensors by name.
        figures: PNG files.
        settings: of the run, as text.
        max_shard_size: weights above it go into several files with an index.
    """

    description: Description
    state: Mapping[str, Tensor]
    figures: Sequence[Path] = ()
    settings: str | None = None
    max_shard_size: int | str = MAX_SHARD


def write_folder(target: Path, content: Content) -> None:
    """Write beside ``target`` first and move into place what is whole.

    Raises:
        OSError: the disk is full or not writable; nothing in the folder has changed then.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        main = _write(staging, content)
        _move_into_place(staging, target, main)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        raise OSError(
            error.errno, f"could not save to {target}: {reason}; what was there is unchanged"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write(staging: Path, content: Content) -> str:
    """All files; the name of the one that leads to the weights."""
    described = content.description
    main = write_weights(staging, content.state, described.architecture, content.max_shard_size)
    own = replace(described.recorded, sha256=sha256_of(staging / main))
    described = replace(described, record=own)
    write_bytes(staging / CONFIG_FILE, described.to_json())
    for image in content.figures:
        write_bytes(staging / FIGURES / image.name, image.read_bytes())
    size = sum(p.stat().st_size for p in staging.glob("*.safetensors"))
    card = write_card(described, size=size, figures=sorted(p.name for p in content.figures))
    write_bytes(staging / CARD_FILE, card.encode())
    if content.settings is not None:
        write_bytes(staging / SETTINGS_FILE, content.settings.encode())
    return main


def _move_into_place(staging: Path, target: Path, main: str) -> None:
    """Weights before their description, whose hash tells a mixture; then what is left of older ones."""
    target.mkdir(exist_ok=True)
    shards = sorted(p.name for p in staging.glob("*.safetensors"))
    for name in [*shards, *([main] if main == INDEX_FILE else []), CONFIG_FILE, CARD_FILE]:
        os.replace(staging / name, target / name)
    for path in [*target.glob("model-*-of-*.safetensors"), target / WEIGHTS_FILE, target / INDEX_FILE]:
        if path.name not in (*shards, main):
            path.unlink(missing_ok=True)
    (target / SETTINGS_FILE).unlink(missing_ok=True)
    if (staging / SETTINGS_FILE).is_file():
        os.replace(staging / SETTINGS_FILE, target / SETTINGS_FILE)
    if (target / FIGURES).is_dir():
        shutil.rmtree(target / FIGURES)
    if (staging / FIGURES).is_dir():
        os.replace(staging / FIGURES, target / FIGURES)
