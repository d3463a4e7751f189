"""Entry point of ``fulgurite``; nothing heavy is imported before a subcommand needs it."""

from __future__ import annotations

import difflib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.run.cli import SpikingCLI

__all__ = ["SpikingCLI", "main"]

RUNS = ("fit", "validate", "test", "predict")  # what LightningCLI finds on the Trainer
COMMANDS = (*RUNS, "convert", "models", "publish", "import", "demo")

HELP = """\
usage: fulgurite COMMAND ...

Train, measure and use spiking neural networks.

commands:
  fit       train a network             fulgurite fit --config configs/stbp/mnist5k.yaml
  validate  accuracy on validation data fulgurite validate --config FILE --ckpt_path best
  test      accuracy at every T, firing rate, operations, energy
                                        fulgurite test --config FILE --ckpt_path best
  predict   classify a folder of images fulgurite predict --config FILE --ckpt_path best \\
                                            --data.predict_dir FOLDER --output predictions.csv
  convert   ANN to spiking network, measured at every T
                                        fulgurite convert --config FILE
  models    list the networks           fulgurite models 'spikingresformer*'
  import    take over an authors' file  fulgurite import FILE.pth
  demo      show a network an image    fulgurite demo spiking_cnn_nano
  publish   put a run on the Hub        fulgurite publish runs/stbp-mnist5k --repo-id OWNER/NAME

A run is one YAML file; any value in it can be changed on the command line
(--trainer.max_epochs 5). Its folder is runs/METHOD-NAME/. A run that was cut off goes on with
--ckpt_path last. All options of a command: fulgurite COMMAND --help
"""


def __getattr__(name: str) -> Any:
    """Import `SpikingCLI` when it is asked for: it takes seconds, and ``--help`` does not need it."""
    if name == "SpikingCLI":
        from cli.run.cli import SpikingCLI

        return SpikingCLI
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main(args: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        args: the words after ``fulgurite``; those of the command line if missing.

    Raises:
        SystemExit: with status 2 and one message on stderr if the user's input is at fault.
    """
    words = list(sys.argv[1:] if args is None else args)
    if not words:
        sys.stderr.write(HELP)
        raise SystemExit(2)
    command, rest = words[0], words[1:]
    if command in ("-h", "--help", "help"):
        sys.stdout.write(HELP)
    elif command == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"fulgurite {version('fulgurite')}\n")
    elif command == "models":
        from cli.commands.models import run as run_models

        run_models(rest)
    elif command == "convert":
        check_config_files(rest)
        from cli.commands.convert import run as run_convert
        from spiking import keep_memory

        keep_memory()
        run_convert(rest)
    elif command == "publish":
        from cli.commands.publish import run as run_publish

        run_publish(rest)
    elif command == "demo":
        from cli.demo.server import run as run_demo

        run_demo(rest)
    elif command == "import":
        from cli.commands.import_checkpoint import run as run_import

        run_import(rest)
    elif command in RUNS:
        check_config_files(rest)
        from cli.run.cli import run as run_lightning
        from spiking import keep_memory

        keep_memory()
        run_lightning(words)
    else:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        fail(f"unknown command '{command}'{hint} Commands: {', '.join(COMMANDS)}")


def fail(message: str) -> NoReturn:
    """Write one error message and leave with status 2."""
    sys.stderr.write(f"fulgurite: error: {message}\n")
    raise SystemExit(2)


def check_config_files(words: Sequence[str]) -> None:
    """Stop with the nearest existing file if a ``--config`` names one that is not there."""
    for index, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option not in ("-c", "--config"):
            continue
        if not equals:
            if index + 1 == len(words):
                fail(f"{option} needs a file")
            value = words[index + 1]
        path = Path(value)
        if path.is_file() and not path.read_text(errors="replace").strip():
            fail(f"the config file {value} is empty")
        if path.is_file() or value.lstrip().startswith("{"):  # a mapping typed in place
            continue
        if path.is_dir():
            fail(f"--config {value} is a folder; name a YAML file in it")
        near = difflib.get_close_matches(value, _known_configs(path), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else f" (looked in {os.getcwd()})"
        fail(f"no such config file: {value}{hint}")


def _known_configs(path: Path) -> list[str]:
    """Return YAML files that somebody who typed `path` may have meant."""
    folders = [Path("configs"), *path.parents[:2]]
    found: set[str] = set()
    for folder in folders:
        if folder.is_dir() and folder != Path():
            found |= {str(p) for p in folder.rglob("*.yaml")}
    found |= {str(p) for p in Path().glob("*.yaml")}
    return sorted(found)
