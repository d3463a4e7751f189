"""Entry point of ``fulgurite``; nothing heavy is imported before a subcommand needs it."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import signals
from cli.config_files import check_config_files
from cli.errors import fail, nearest
from cli.guard import one_message, short_warnings
from cli.shipped_configs import config_values, resolve_configs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.run.cli import SpikingCLI

__all__ = ["SpikingCLI", "main"]

RUNS = ("fit", "validate", "test", "predict")  # methods of Lightning's Trainer
COMMANDS = {  # name: module whose function `run` takes the words that were typed
    **dict.fromkeys(RUNS, "cli.run.cli"),
    "convert": "cli.commands.convert",
    "configs": "cli.commands.configs",
    "models": "cli.commands.models",
    "publish": "cli.commands.publish",
    "import": "cli.commands.import_checkpoint",
    "info": "cli.commands.info",
    "compare": "cli.commands.compare",
    "export": "cli.commands.export",
    "demo": "cli.demo.server",
    "stream": "cli.stream.command",
}
ALSO_SAID = {"train": "fit", "evaluate": "test", "eval": "test", "classify": "predict", "list": "models"}
BY_NAME = {  # with the name of a trained network in the place of a YAML file
    "test": "cli.commands.evaluate",
    "predict": "cli.commands.predict",
}
CONFIGURED = (*RUNS, "convert")  # take --config

HELP = """\
usage: fulgurite COMMAND ...

Train, measure and use spiking neural networks.

commands:
  configs   list the runs to begin with fulgurite configs '*mnist5k'
  fit       train a network             fulgurite fit --config stbp/mnist5k
  validate  accuracy on validation data fulgurite validate --config FILE --ckpt_path best
  test      accuracy at every T, firing rate, operations, energy
                                        fulgurite test spiking_cnn_nano mnist5k
                                        fulgurite test --config FILE --ckpt_path best
  predict   classify images             fulgurite predict spiking_cnn_nano IMAGES
                                        fulgurite predict --config FILE --ckpt_path best \\
                                            --data.predict_dir FOLDER
  convert   ANN to spiking network, measured at every T
                                        fulgurite convert --config FILE
  models    list the networks           fulgurite models 'spikingresformer*'
  info      all about one               fulgurite info spiking_cnn_nano
  compare   runs side by side           fulgurite compare runs/A runs/B 'runs/C-seed*'
  import    take over an authors' file  fulgurite import FILE.pth
  export    a file for other programs   fulgurite export spiking_cnn_nano --to onnx
  demo      show a network an image     fulgurite demo spiking_cnn_nano
  stream    run a network on a recording, event by event
                                        fulgurite stream CHECKPOINT --events FILE.bin
  publish   put a run on the Hub        fulgurite publish runs/stbp-mnist5k --repo-id OWNER/NAME

A network is named as zoo.load has it: an entry, timm/NAME, a folder, a run (runs/NAME), hf-hub:OWNER/NAME.
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
        SystemExit: with status 2 and one message on stderr if something went wrong; 128 + n after signal n.
    """
    with signals.handled(), one_message(), short_warnings():
        words = resolve_configs(sys.argv[1:] if args is None else args)
        _reach_own_modules(words)
        _run(words)


def _reach_own_modules(words: Sequence[str]) -> None:
    """Let ``class_path: my_net.Net`` find a file of the user's in the working directory or beside the YAML.

    They come last, so that nothing there hides a package of ours.
    """
    places = [os.getcwd(), *(str(Path(value).resolve().parent) for value in config_values(words))]
    sys.path += [place for place in dict.fromkeys(places) if place not in sys.path]


def _run(words: Sequence[str]) -> None:
    if not words:
        sys.stderr.write(HELP)
        raise SystemExit(2)
    command, rest = words[0], words[1:]
    if command == "help" and rest and rest[0] in COMMANDS:
        _run([rest[0], "--help"])
    elif command in ("-h", "--help", "help"):
        sys.stdout.write(HELP)
    elif command == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"fulgurite {version('fulgurite')}\n")
    elif command in BY_NAME and rest and not rest[0].startswith("-"):
        import_module(BY_NAME[command]).run(rest)
    elif command in CONFIGURED:
        check_config_files(rest, command)
        from spiking import keep_memory

        keep_memory()
        import_module(COMMANDS[command]).run(words if command in RUNS else rest)
    elif command in COMMANDS:
        import_module(COMMANDS[command]).run(rest)
    else:
        near = nearest(command, (*COMMANDS, *ALSO_SAID, "help"))
        hint = "." if near is None else f"; did you mean '{ALSO_SAID.get(near, near)}'?"
        fail(f"there is no command '{command}'{hint} Commands: {', '.join(COMMANDS)}")
