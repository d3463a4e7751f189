"""The reference of the command line, read off the parsers of its commands."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from unittest import mock

import jsonargparse

from cli.main import BY_NAME, COMMANDS, RUNS
from cli.run import help

OURS = {  # option: (what follows it, our words), where the parser has pages of Lightning's
    "--config": (
        "FILE",
        "YAML, or a run that comes with the package (fulgurite configs); may be repeated",
    ),
    "--print_config": ("", "print the whole configuration, and stop"),
    "--seed_everything": (
        "N",
        "seed of everything random; true: any. If typed, it is in the folder's name",
    ),
    "--model": ("CLASS", "the task; --model.help CLASS lists its arguments, --model.ARGUMENT VALUE sets one"),
    "--data": (
        "CLASS",
        "the data; --data.help CLASS lists its arguments, --data.ARGUMENT VALUE sets one",
    ),
    "--trainer": (
        "FILE",
        "arguments of Lightning's Trainer; --trainer.ARGUMENT VALUE sets one",
    ),
    "--ckpt_path": ("WORD", "last, best, or a file; a fit goes on from there"),
    "--weights_only": ("{true,false}", "false reads checkpoints that may run code"),
    "--source": ("FILE", "the ANN from a file, or by the following options"),
}
HIDDEN = ("--help", "--return_predictions", "--tensorboard")


class BuiltError(Exception):
    """Stands for the end of a command whose parser has been built."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__("built")
        self.parser = parser


def parser_of(module: str, words: list[str]) -> argparse.ArgumentParser:
    """The parser that a command asks to read its words; nothing else of the command is run."""

    def stop(parser, *args, **kwargs):
        raise BuiltError(parser)

    kinds = (argparse.ArgumentParser, jsonargparse.ArgumentParser)
    patches = [
        mock.patch.object(kind, name, stop) for kind in kinds for name in ("parse_args", "parse_known_args")
    ]
    try:
        for patch in patches:
            patch.start()
        import_module(module).run(words)
    except BuiltError as built:
        return built.parser
    finally:
        mock.patch.stopall()
    raise AssertionError(f"{module} has no parser")


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command, as it is typed, and its parser."""
    for command, module in COMMANDS.items():
        if command not in RUNS:
            yield command, parser_of(module, [])
            continue
        runs = parser_of(module, [command, "--config", ""])
        (inside,) = (a for a in runs._actions if isinstance(a, argparse._SubParsersAction))
        yield f"{command} --config FILE", inside.choices[command]
        if command in BY_NAME:
            yield f"{command} NAME", parser_of(BY_NAME[command], [])


def write_reference(path: Path) -> None:
    """One section for each command: what it does, its arguments, its options without Lightning's."""
    parts = []
    for typed, parser in parsers():
        command = typed.partition(" ")[0]
        about = parser.description or ""
        if typed.endswith("--config FILE"):
            example, what = help.EXAMPLES[command]
            about = f"{what[0].upper()}{what[1:]}: `fulgurite {command} --config {example}`."
        parts.append(f"## fulgurite {typed}\n\n{' '.join(about.split())}\n")
        shown = _shown(parser, _useless(command) if typed.endswith("--config FILE") else ())
        parts += [f"`{_typed(action)}`\n: {_about(action, parser)}\n" for action in shown]
    path.write_text("\n".join(parts), encoding="utf-8")


def _useless(command: str) -> Iterator[str]:
    """Options of a run that this command takes and makes no use of."""
    names = (help.ONLY_FIT if command != "fit" else ()) + (help.ONLY_PREDICT if command != "predict" else ())
    yield from (f"--{name}" for name in names)


def _shown(parser: argparse.ArgumentParser, useless: Iterable[str]) -> Iterator[argparse.Action]:
    """Arguments and options, but those of Lightning's Trainer and of classes."""
    left_out = {*HIDDEN, *useless}
    for action in parser._actions:
        names = _names(action)
        if (
            action.help != argparse.SUPPRESS
            and not left_out & set(names)
            and (names or not action.option_strings)
        ):
            yield action


def _names(action: argparse.Action) -> list[str]:
    """How an option is spelt, without what belongs to Lightning's Trainer or prints a class."""
    names = [name for name in action.option_strings if not name.startswith("--trainer.")]
    return [name for name in names if not name.endswith((".help", "+"))]


def _ours(action: argparse.Action) -> tuple[str, str] | None:
    return next((OURS[name] for name in action.option_strings if name in OURS), None)


def _typed(action: argparse.Action) -> str:
    value = action.metavar or ("" if action.nargs == 0 else _value(action))
    value = " ".join(value) if isinstance(value, tuple) else value
    if (ours := _ours(action)) is not None:
        value = ours[0]
    return f"{', '.join(_names(action))} {value}".strip() or action.dest


def _value(action: argparse.Action) -> str:
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    hint = getattr(action, "_typehint", None)
    if hint is not None:
        return help.values(hint)
    return action.dest.upper() if action.option_strings else action.dest


def _about(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    ours = _ours(action)
    text = ours[1] if ours is not None else action.help or ""
    text = text.replace("%(default)s", str(action.default)).replace("%(prog)s", parser.prog)
    text = " ".join(text.replace("%%", "%").split())
    return text if text.endswith("...") else text.removesuffix(".")
