"""Errors that the user can correct, and the short messages they become."""

from __future__ import annotations

import difflib
import errno
import re
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable


class CommandError(RuntimeError):
    """What was asked for cannot be done; the message says why and what to do."""


class CheckpointError(CommandError):
    """A checkpoint that is missing, damaged, or could not be written."""


def fail(message: str) -> NoReturn:
    """Write one error message and leave with status 2."""
    sys.stderr.write(f"fulgurite: error: {message}\n")
    raise SystemExit(2)


FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}


def disk_problem(error: BaseException | None) -> str | None:
    """Return what kept a file from being written, if `error` or its cause tells so."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return FULL.get(error.errno, error.strerror or str(error))
        error = error.__cause__ or error.__context__
    return None


ALSO_CALLED = {  # elsewhere; what is spelt like none of our words is found by these
    "learning_rate": "lr", "base_lr": "lr", "optim": "optimizer", "opt": "optimizer", "wd": "weight_decay",
    "criterion": "loss", "scheduler": "schedule", "lr_scheduler": "schedule", "architecture": "model",
    "arch": "model", "backbone": "model", "epochs": "trainer.max_epochs", "num_epochs": "trainer.max_epochs",
    "n_epochs": "trainer.max_epochs", "gpus": "trainer.devices", "bs": "batch_size", "workers": "num_workers",
    "data_dir": "root", "img_size": "image_size", "input_size": "image_size", "resume": "ckpt_path",
    "seed": "seed_everything", "T": "model_args", "time_steps": "model_args", "timesteps": "model_args",
    "neuron": "model_args", "tau": "model_args",
}  # fmt: skip


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word that is spelt most like another, whatever the case; None if none is near.

    As `spiking.arguments.nearest`, which would import torch before a misspelt command is answered.
    """
    by_case = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_case, n=1, cutoff=cutoff)
    return by_case[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint such as ``; did you mean 'x'?``, or nothing if no known word is near."""
    words = list(known)
    meant = ALSO_CALLED.get(word.rpartition(".")[2])
    if meant is not None and any(own == meant or own.endswith(f".{meant}") for own in words):
        inside = f": {{{word.rpartition('.')[2]}: ...}}" if meant == "model_args" else ""
        return f"; did you mean '{meant}{inside}'?"
    near = nearest(word, words)
    return "" if near is None else f"; did you mean '{near}'?"


def subclasses(*bases: type) -> dict[str, type]:
    """Return all imported subclasses by their short names."""
    found: dict[str, type] = {}
    todo = list(bases)
    while todo:
        cls = todo.pop()
        found.setdefault(cls.__name__, cls)
        todo.extend(cls.__subclasses__())
    return found


def accepted_options(cls: type) -> list[str]:
    """Return the constructor's arguments, those of base classes behind ``**kwargs`` included."""
    from spiking.own import accepted_arguments

    return list(accepted_arguments(cls))


NOISE = (
    "Given value",
    "Does not validate against any",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'None",
    "Expected a path but",  # a class name may also be the path of a YAML file
)


def without_noise(message: str) -> str:
    """Return the lines of a parser's message that say what is wrong, each of them once."""
    kept: dict[str, None] = {}
    for line in message.splitlines():
        words = line.strip().removeprefix("- ")
        if words and not words.startswith(NOISE):
            kept[re.sub(r"^(\s*)- ", r"\1", line)] = None
    lists = [line for line in kept if "Expected a typing.Literal[" in line]
    if len(lists) > 1:  # one for each type of a value that may be a word or a number
        known: dict[str, None] = {}
        for line in lists:
            known |= dict.fromkeys(w.strip(" '") for w in line.partition("[")[2].rstrip("]").split(","))
            del kept[line]
        kept["    must be one of " + ", ".join(known)] = None
    return "\n".join(kept)


OWN = ("cli", "conversion", "datamodules", "lightning_modules", "spiking", "zoo")


def summary(error: BaseException) -> str:
    """Return one or two lines for an error: its message, with the type where that alone says little."""
    text = _from_worker(str(error).strip())
    if "Given value" in text:  # the parser reports what a constructor refused, with all its arguments
        text = "\n".join(line.strip() for line in without_noise(text).splitlines())
    # the parser says whose constructor failed, by its path
    text = re.sub(r"^Problem with given class_path '(?:\w+\.)*(\w+)':\s*", r"\1: ", text)
    if type(error).__module__.partition(".")[0] not in OWN:  # a library's may be a page
        text = "\n  ".join([line.strip() for line in text.splitlines() if line.strip()][:2])
    return text if len(text.split()) > 2 else f"{type(error).__name__}: {text or 'no message'}"


def _from_worker(text: str) -> str:
    """The message of an error that a loader's worker process hands on with its whole traceback."""
    if not re.match(r"Caught \S+ in \S+ (worker process|replica)", text):
        return text
    lines = text.splitlines()
    starts = [k for k, line in enumerate(lines) if re.match(r"[A-Za-z_][\w.]*(: |$)", line)]
    return "\n".join(lines[starts[-1] :]).partition(": ")[2] if starts and starts[-1] else text


def out_of_memory(error: BaseException) -> str | None:
    """Return one line that says how much memory was asked for, if `error` is about that."""
    text = str(error)
    asked = re.search(r"tried to allocate (\d+) bytes|(?:Tried|Unable) to allocate ([\d.]+ \w+)", text, re.I)
    kind = type(error).__name__
    if (
        not isinstance(error, MemoryError)
        and kind != "OutOfMemoryError"
        and not re.search("not enough memory|t allocate memory", text)
    ):
        return None
    size = "more than there is" if asked is None else asked[2] or f"{int(asked[1]):,} bytes"
    return (
        f"out of memory: {size} were asked for at once; lower time_steps, data.batch_size or the image size"
    )
