"""Which checkpoint a run goes on from, and whether it is whole and fits."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from cli.errors import CheckpointError
from spiking.own import import_class
from zoo.files.formats.archive import check_archive
from zoo.files.layout import RUN_CHECKPOINTS, RUN_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning_modules import BaseTask

CHECKPOINTS = RUN_CHECKPOINTS
BEST, LAST = RUN_WEIGHTS


def resolve(ckpt_path: str | Path | None, folder: Path) -> Path | str | None:
    """Turn ``last``, ``best`` or a path into a checkpoint that is there and whole.

    Args:
        ckpt_path: what the user typed.
        folder: the run's folder.

    Returns:
        The path; ``None`` if none was asked for; Lightning's own words (``hpc``, ``registry``) and
        addresses of remote files unchanged.
    """
    if ckpt_path is None:
        return None
    word = str(ckpt_path)
    if word == "last":
        return newest_intact(folder)
    if word == "best":
        path = folder / CHECKPOINTS / BEST
        if not path.exists():
            raise CheckpointError(_nothing(folder, "best"))
        read_progress(path)
        return path
    if word == "hpc" or word.startswith("registry") or "://" in word:
        return word
    path = Path(word)
    if not path.exists():
        raise CheckpointError(
            f"no such checkpoint: {word}. Give a file, or 'last' or 'best' for those of {folder}"
        )
    read_progress(path)
    return path


def _nothing(folder: Path, word: str) -> str:
    inside = folder / CHECKPOINTS
    state = "that folder does not exist" if not inside.is_dir() else "it holds none"
    return (
        f"--ckpt_path {word}: no checkpoint in {inside} ({state}). Runs are looked for in the"
        " current directory unless trainer.default_root_dir says otherwise; start the run without"
        " --ckpt_path"
    )


def newest_intact(folder: Path) -> Path:
    """Return the checkpoint with the most steps behind it that can be read as a whole.

    Damaged ones (a machine that lost power, a disk that failed) are passed over.

    Args:
        folder: the run's folder; checkpoints are in its ``checkpoints``.
    """
    inside = folder / CHECKPOINTS
    found = sorted(inside.glob("*.ckpt")) if inside.is_dir() else []
    ranked, damaged = [], []
    for path in found:
        try:
            step = read_progress(path)
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        ranked.append((step, path.name == LAST, path.stat().st_mtime, path))
    if ranked:
        return max(ranked)[-1]
    if damaged:
        raise CheckpointError("no checkpoint is whole:\n  " + "\n  ".join(damaged))
    raise CheckpointError(_nothing(folder, "last"))


def read_progress(path: Path) -> int:
    """Check that a checkpoint is whole and return its number of optimiser steps.

    Args:
        path: a file, or the folder that a sharded strategy writes.

    Raises:
        CheckpointError: it is truncated, altered, no checkpoint, or holds code.
    """
    if path.is_dir():  # FSDP and its like; the shards have checks of their own
        if not (path / ".metadata").is_file():
            raise CheckpointError(f"{path} is damaged: a sharded checkpoint without .metadata")
        path = path / "meta.pt"
    try:
        check_archive(path)  # compares the checksum of every tensor
        content: Any = _content(path)
    except zoo.CheckpointError as error:
        raise CheckpointError(str(error)) from error
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise CheckpointError(
            f"{path} holds objects other than tensors and plain values{f' ({found[1]})' if found else ''},"
            " which may run code when loaded; it is refused"
        ) from error
    except Exception as error:  # what hostile bytes make of torch's reader is not only its own errors
        raise CheckpointError(f"cannot read the checkpoint {path}: {error}") from error
    if not isinstance(content, dict) or ("state_dict" not in content and not path.name == "meta.pt"):
        raise CheckpointError(
            f"{path} is no training checkpoint (it has no 'state_dict'); weights of the zoo go to"
            " model_args: {weights: PATH}"
        )
    step = content.get("global_step", 0)
    if not isinstance(step, int) or not isinstance(content.get("state_dict", {}), dict):
        raise CheckpointError(f"{path} is no training checkpoint: its global_step or state_dict is none")
    return step


def logged_rows(path: Path) -> int:
    """Rows of ``metrics.csv`` that a whole checkpoint counts on: its optimiser steps, if it says no other.

    A task with several optimisers takes more steps of them than there are batches.
    """
    step = read_progress(path)
    content = {} if path.is_dir() else _content(path)
    rows = content.get("logged_steps", step)
    return rows if isinstance(rows, int) else step


def leave_out_beginning(model: Any, path: Path) -> None:
    """Let nothing in a configuration name the places of first weights: a checkpoint brings them all.

    Args:
        model: ``class_path`` and ``init_args`` of the task; changed in place.
        path: the checkpoint, which `read_progress` accepted.
    """
    from lightning_modules import BaseTask

    content = _content(path / "meta.pt" if path.is_dir() else path)
    kind: type[BaseTask] = import_class(model.class_path, BaseTask)
    given = vars(model.init_args)
    for key, value in kind.restored_arguments(given, content.get("hyper_parameters") or {}).items():
        if value != given[key]:
            model.init_args[key] = value


def check_fits(path: Path, module: BaseTask, training: bool) -> None:
    """Compare a checkpoint with the module it is to be loaded into, before anything is changed.

    Args:
        path: a file that `read_progress` accepted; folders of sharded strategies check themselves.
        module: the task.
        training: whether training goes on from it, which needs the optimiser's state.

    Raises:
        CheckpointError: lists missing, unexpected and misshapen keys; or it is of another optimiser.
    """
    from lightning_modules.optimizer_state import refuse_other

    if path.is_dir():
        return
    content = _content(path)
    stored = content["state_dict"]
    module.match_state(stored)
    own = module.state_dict()
    shapes = [
        f"{key} is {_shape(stored[key])} there, {_shape(own[key])} here"
        for key in own
        if key in stored and _shape(stored[key]) != _shape(own[key])
    ]
    faults = {
        "missing": [key for key in own if key not in stored],
        "unexpected": [key for key in stored if key not in own],
        "of another shape": shapes,
    }
    lines = [f"{name}: {_first(keys)}" for name, keys in faults.items() if keys]
    if lines:
        raise CheckpointError(
            f"{path} does not fit the configured model; was it written by another configuration?\n  "
            + "\n  ".join(lines)
        )
    if training and not {"optimizer_states", "loops"} <= set(content):
        raise CheckpointError(
            f"{path} holds weights only, so training cannot go on from it; to start from these weights:"
            " --model.init_args.model_args.weights PATH"
        )
    if training:
        try:
            refuse_other(content, module.optimizer_name)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error


def _content(path: Path) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return found


def _shape(value: Any) -> str:
    return "x".join(str(n) for n in getattr(value, "shape", ())) or "a scalar"


def _first(keys: Sequence[str], most: int = 5) -> str:
    more = f", and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
