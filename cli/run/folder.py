"""Where a run lives: one fixed folder for each configuration."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from cli.run.resume import BEST, CHECKPOINTS, LAST, read_progress

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run's folder, and the checkpoint that it goes on from.

    Attributes:
        path: of the folder.
        checkpoint: a file or a folder of shards; Lightning's own words (``hpc``, ``registry``) and addresses
            of remote files as they were typed; None starts anew.
        words: what was typed after ``fulgurite``, the subcommand first.
    """

    path: Path
    checkpoint: Path | str | None
    words: tuple[str, ...]

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def trained(self) -> Path | None:
        """The best checkpoint, else the last one, if there is any."""
        return next((p for p in (self.checkpoints / BEST, self.checkpoints / LAST) if p.exists()), None)

    @property
    def goes_on(self) -> bool:
        """Whether the checkpoint is one of this folder, so that a fit continues what it holds."""
        if not isinstance(self.checkpoint, Path):
            return False
        return self.path.resolve() in self.checkpoint.resolve().parents

    @property
    def kept_steps(self) -> int | None:
        """Optimiser steps whose rows of ``metrics.csv`` stay when a fit goes on; None starts a new table."""
        return read_progress(self.checkpoint) if self.goes_on and isinstance(self.checkpoint, Path) else None

    @property
    def command(self) -> str:
        """The command line as it was typed."""
        return shlex.join(["fulgurite", *self.words])

    @property
    def resume_command(self) -> str:
        """What is to be typed to go on after an interruption."""
        words: list[str] = []
        skip = False
        for word in self.words:
            if skip or word.startswith("--ckpt_path"):
                skip = not skip and word == "--ckpt_path"
                continue
            words.append(word)
        return shlex.join(["fulgurite", *words, "--ckpt_path", "last"])

    def start_clean(self) -> None:
        """Keep an earlier run under another name, unless this one goes on with it."""
        first = getattr(rank_zero_only, "rank", 0) == 0 and os.environ.get("NODE_RANK", "0") == "0"
        if self.goes_on or not first:
            return
        if (target := set_aside(self.path)) is not None:
            rank_zero_info(f"the earlier run in {self.path} is kept as {target}")


def run_folder(configs: Sequence[str | Path], fallback: str) -> Path:
    """Return ``runs/METHOD-NAME`` for ``configs/METHOD/NAME.yaml``.

    Args:
        configs: the run's YAML files; names of further ones are appended, so that variants of one
            base have folders of their own.
        fallback: the name of a run without any file.
    """
    paths = [Path(p) for p in configs]
    if not paths:
        return Path("runs") / _plain(fallback)
    if paths[0].name == "config.yaml" and (paths[0].parent / CHECKPOINTS).is_dir():
        return paths[0].parent  # the copy that a run keeps of its own settings
    names = [paths[0].stem, *(p.stem for p in paths[1:])]
    parent = paths[0].resolve().parent.name
    return Path("runs") / _plain(f"{parent}-{'+'.join(names)}".lstrip("-"))


def _plain(name: str) -> str:
    return re.sub(r"[^\w.+=-]+", "_", name)


def set_aside(folder: Path) -> Path | None:
    """Rename the folder of an earlier run, so that a new one starts clean and nothing is lost.

    Args:
        folder: the run's folder.

    Returns:
        The new name, or ``None`` if there was no earlier run with a checkpoint.
    """
    if not list((folder / CHECKPOINTS).glob("*.ckpt")):
        return None
    number = 1
    while (target := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    folder.rename(target)
    return target
