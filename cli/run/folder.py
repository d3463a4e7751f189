"""Where a run lives: one fixed folder for each configuration."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from cli.errors import CommandError
from cli.run import lock
from cli.run.resume import BEST, CHECKPOINTS, LAST, logged_rows
from zoo.files.layout import RUNS

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARED = "FULGURITE_RUN_FOLDER"  # tells it to the other processes of a run


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
        """Steps whose rows of ``metrics.csv`` stay when a fit goes on; None starts a new table."""
        return logged_rows(self.checkpoint) if self.goes_on and isinstance(self.checkpoint, Path) else None

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
        if self.goes_on or not is_first_process():
            return
        if (target := set_aside(self.path)) is not None:
            rank_zero_info(f"the earlier run in {self.path} is kept as {target}")


def run_folder(
    configs: Sequence[str | Path], fallback: str, name: str | None = None, seed: int | None = None
) -> Path:
    """Return ``runs/METHOD-NAME`` for ``configs/METHOD/NAME.yaml``.

    Args:
        configs: the run's YAML files; names of further ones are appended, so that variants of one
            base have folders of their own.
        fallback: the name of a run without any file.
        name: the folder's name in ``runs``, if the user chose one.
        seed: one that the user typed, which makes another run of the same file.
    """
    paths = [Path(p) for p in configs]
    end = "" if seed is None else f"-seed{seed}"
    if name or not paths:
        return Path(RUNS) / _plain((name or fallback) + end)
    if paths[0].name == "config.yaml" and (paths[0].parent / CHECKPOINTS).is_dir():
        return paths[0].parent  # the copy that a run keeps of its own settings
    names = [paths[0].stem, *(p.stem for p in paths[1:])]
    parent = paths[0].resolve().parent.name
    return Path(RUNS) / _plain(f"{parent}-{'+'.join(names)}".lstrip("-") + end)


def typed_seed(words: Sequence[str], value: Any) -> int | None:
    """The seed of a run if the user typed one, which makes another run of the same file; else None.

    Args:
        words: what was typed.
        value: what was parsed; true asks for any.
    """
    typed = any(word.partition("=")[0] == "--seed_everything" for word in words)
    return value if typed and type(value) is int else None


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
    return move_aside(folder)


def move_aside(path: Path) -> Path:
    """Rename a folder or a file to the first free name with a number, and return that."""
    stem, suffix = (path.name, "") if path.is_dir() else (path.stem, path.suffix)
    number = 1
    while (target := path.with_name(f"{stem}.{number}{suffix}")).exists():
        number += 1
    path.rename(target)
    return target


def is_first_process() -> bool:
    """Whether this process is the one of a run that writes."""
    return getattr(rank_zero_only, "rank", 0) == 0 and os.environ.get("NODE_RANK", "0") == "0"


def claim(folder: Path, *, own: bool) -> Path:
    """Lock a folder for this run, or one of its own for a second run at the same time.

    The other processes of a run learn of the folder by the environment.

    Args:
        folder: the run's.
        own: whether another folder will do; otherwise a folder in use is refused.

    Raises:
        CommandError: it is in use, or cannot be written to.
    """
    if not is_first_process():
        return Path(os.environ.get(SHARED, folder))
    started_together = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1"))) > 1
    chosen, number = folder, 0
    while True:
        try:
            lock_writable(chosen)
            break
        except lock.InUseError as error:
            if not own or started_together:  # each process has found the folder by itself
                raise
            number += 1
            while (chosen := folder.with_name(f"{folder.name}.{number}")).exists():
                number += 1
            rank_zero_info(f"{str(error).partition(';')[0]}: this run gets {chosen}")
    os.environ[SHARED] = str(chosen)
    return chosen


def lock_writable(folder: Path) -> None:
    """Lock a folder and make sure that it can be written to.

    Raises:
        CommandError: it is in use, or cannot be written to.
    """
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{folder} is a file, but a folder is to be written there; choose another name")
    try:
        lock.acquire(folder)
    except OSError as error:
        raise CommandError(_unwritable(folder, error)) from error
    try:
        if folder.is_dir():
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        lock.release(folder)
        raise CommandError(_unwritable(folder, error)) from error


def check_output(path: Path, folder: bool = False) -> None:
    """Make sure that a file, or a folder of files, can be written.

    Raises:
        CommandError: it cannot.
    """
    if path.exists() and path.is_dir() != folder:
        wrong, right = ("a file", "a folder") if folder else ("a folder", "a file in it")
        raise CommandError(f"--output {path} is {wrong}; name {right}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise CommandError(_unwritable(path, error)) from error


def _unwritable(path: Path, error: OSError) -> str:
    return f"cannot write to {path}: {error.strerror or error}; choose another place, or make it writable"
