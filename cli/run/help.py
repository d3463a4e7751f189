"""``fulgurite fit --help`` in one screen: our options first; ``--help all`` has Lightning's, too."""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
import types
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WIDTH, COLUMN = 110, 34
ASKED = ("-h", "--help")
EXAMPLES = {
    "fit": ("stbp/mnist5k", "train a network"),
    "validate": ("stbp/mnist5k --ckpt_path best", "accuracy on the samples that choose the checkpoint"),
    "test": ("stbp/mnist5k --ckpt_path best", "accuracy at every T, firing rate, energy"),
    "predict": ("stbp/mnist5k --ckpt_path best --data.predict_dir DIR", "classes of images"),
}
BASES = (
    "BaseTask",
    "BaseDataModule",
    "ArrayDataModule",
    "ClassificationDataModule",
    "ControlDataModule",
    "EventDataModule",
)
ONLY_FIT = ("test_after_fit", "checkpoint_every_n_steps")
ONLY_PREDICT = ("output", "top_k", "explain")
TRAINER = (
    ("max_epochs N", "epochs; or --trainer.max_steps N, --trainer.max_time DD:HH:MM:SS"),
    ("accelerator WORD", "auto, cpu, gpu, ..."),
    ("devices N", "processes, or GPUs; with --trainer.strategy auto, ddp, fsdp, ..."),
    ("precision WORD", "32-true, 16-mixed, bf16-mixed, ..."),
    ("gradient_clip_val X", "largest norm of the gradient"),
    ("callbacks+ CLASS", "FiringRate, Energy, RasterFigure, EarlyStopping, ..."),
)


def wanted(words: Sequence[str]) -> bool:
    """Whether the short help is asked for; what follows ``--help`` in ``--help all`` asks for all of it."""
    return any(word in ASKED for word in words) and "all" not in words


def without_all(words: Sequence[str]) -> list[str]:
    """The words that Lightning's help understands."""
    asked = any(word in ASKED for word in words)
    return [word for word in words if not (asked and word == "all")]


def show(command: str) -> None:
    """Print the help of a command."""
    sys.stdout.write(text(command))


def text(command: str) -> str:
    """The help of a command, in lines of at most `WIDTH` characters."""
    example, what = EXAMPLES[command]
    lines = [
        f"usage: fulgurite {command} --config FILE [--OPTION VALUE ...]",
        *([f"       fulgurite {command} NAME ...      without YAML: fulgurite {command} NAME --help"]
          if command in ("test", "predict") else []),
        "",
        f"{what[0].upper()}{what[1:]}: fulgurite {command} --config {example}",
        "",
        "of the run:",
        *_row("-c, --config FILE", "a YAML file, or a run that comes with the package (fulgurite configs);"
              " may be repeated"),
        *_row("--ckpt_path WORD", "last, best, or a file" + (": go on with a run that was cut off"
              if command == "fit" else "")),
        *_row("--seed_everything N", "seed of everything random; true: any"),
        *(line for name, about in _own(command) for line in _row(name, about)),
        *_row("--print_config", "the whole configuration, and stop"),
        "",
        "of the model (--model.OPTION VALUE; all: --model.help CLASS):",
        *_row("--model CLASS", _kinds("lightning_modules", "Task")),
        *(line for name, about in _task() for line in _row(name, about)),
        "",
        "of the data (--data.OPTION VALUE; all: --data.help CLASS):",
        *_row("--data CLASS", _kinds("datamodules", "DataModule")),
        *_row("--data.batch_size N", "samples in a batch; also num_workers, image_size, flip, ..."),
        "",
        "of Lightning's Trainer (--trainer.OPTION VALUE):",
        *(line for name, about in TRAINER for line in _row(f"--trainer.{name}", about)),
        "",
        f"All options, Lightning's too: fulgurite {command} --help all",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _row(name: str, about: str) -> list[str]:
    rest = textwrap.wrap(about, WIDTH - COLUMN)
    head = f"  {name:<{COLUMN - 3}} "
    if len(head) > COLUMN:
        return [head.rstrip(), *(" " * COLUMN + line for line in rest)]
    return [head + rest[0], *(" " * COLUMN + line for line in rest[1:])]


def _own(command: str) -> Iterator[tuple[str, str]]:
    """Our own options of a run, with their choices and what they mean."""
    from cli.run.options import RunOptions

    told = _documented(RunOptions)
    hints = get_type_hints(RunOptions)
    hidden = (
        "tensorboard",
        *(() if command == "fit" else ONLY_FIT),
        *(() if command == "predict" else ONLY_PREDICT),
    )
    for field in fields(RunOptions):
        if field.name not in hidden:
            yield f"--{field.name} {values(hints[field.name])}", told[field.name]


def _task() -> Iterator[tuple[str, str]]:
    """The options of a classifier's training that are changed most."""
    from lightning_modules import ClassificationTask
    from lightning_modules.base import BaseTask

    told = _documented(ClassificationTask) | _documented(BaseTask)
    hints = get_type_hints(ClassificationTask.__init__) | get_type_hints(BaseTask.__init__)
    for name in ("model", "model_args", "loss", "optimizer", "lr", "schedule"):
        yield f"--model.{name} {values(hints[name])}", told[name].partition(";")[0]


def _documented(cls: type) -> dict[str, str]:
    """What a docstring in Google's style says of each argument or attribute, without code marks."""
    doc = inspect.cleandoc(cls.__doc__ or "")
    found = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", doc, re.M)
    return {name: " ".join(about.split()).replace("``", "").rstrip(".") for name, about in found}


def values(hint: Any) -> str:
    """What stands behind an option: its choices, or the kind of value."""
    if get_origin(hint) is Literal:
        return "{" + ",".join(str(value) for value in get_args(hint)) + "}"
    if get_origin(hint) in (Union, types.UnionType):
        return values(get_args(hint)[0])
    return {bool: "{true,false}", int: "N", float: "X", dict: "{KEY: VALUE}"}.get(
        get_origin(hint) or hint, "WORD"
    )


def _kinds(package: str, suffix: str) -> str:
    """Classes of a package that a configuration may name, without what their names share."""
    from importlib import import_module

    names = [name for name in import_module(package).__all__ if name.endswith(suffix)]
    plain = [name.removesuffix(suffix) for name in names if name not in BASES]
    return f"X{suffix}, where X is {', '.join(plain)}; or a class of your own: my_file.MyClass"
