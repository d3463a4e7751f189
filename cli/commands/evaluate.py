"""``fulgurite test NAME DATA``: a trained network on labelled data, without a YAML file."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.words import WordParser

if TYPE_CHECKING:
    from collections.abc import Sequence

CALLBACKS = (  # networks without neurons are tested, too
    "--trainer.callbacks=FiringRate",
    "--trainer.callbacks.init_args.optional=true",
    "--trainer.callbacks+=Energy",
    "--trainer.callbacks+=RunReport",
)


def run(words: Sequence[str]) -> None:
    """Test a network.

    Args:
        words: what was typed after ``fulgurite test``.
    """
    from cli.run import cli

    cli.run(translated(words))


def translated(words: Sequence[str]) -> list[str]:
    """The same test for Lightning's command line, which takes all further options.

    Args:
        words: name of a network, of data if it does not say its own, and options.
    """
    from cli.run.package import CONFIG
    from zoo import locate
    from zoo.files.layout import is_run
    from zoo.timm_bridge.names import PREFIX

    parser = WordParser(
        prog="fulgurite test",
        description="Accuracy at every T, firing rate, operations and energy of a trained network, its images"
        " prepared as the weights want them. Further options are those of `fulgurite test --help`:"
        " --trainer.devices 2, --data.init_args.num_workers 4, ...",
    )
    parser.add_argument(
        "name", help="an entry of the zoo, timm/NAME, a folder, a run (runs/NAME), or hf-hub:OWNER/NAME"
    )
    parser.add_argument(
        "data",
        nargs="?",
        help="a data set, or a folder of images sorted by class; the network's own if missing",
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="images at once")
    parser.add_argument("--time-steps", type=int, metavar="T", help="T; that of the weights if missing")
    parser.add_argument("--root", help="where the data set lies")
    options, further = parser.parse_known_args(list(words))
    elsewhere = locate.is_remote(options.name) or options.name.startswith(PREFIX)
    from_run = options.data is None and not elsewhere
    if from_run and locate.is_location(options.name):
        checkpoint = locate.place_of(options.name)
        run_folder = Path(os.path.normpath(checkpoint.parent / ".."))
        config = run_folder / CONFIG
        if checkpoint.suffix == ".ckpt" and is_run(run_folder) and config.is_file():
            steps = _argument("--model.init_args.model_args.time_steps", options.time_steps)
            size = _argument("--data.init_args.eval_batch_size", options.batch_size)
            return ["test", f"--config={config}", f"--ckpt_path={checkpoint}", *steps, *size, *further]
    return _of_network(options, further)


def _of_network(options: Any, further: Sequence[str]) -> list[str]:
    from cli import networks

    arguments = {} if options.time_steps is None else {"time_steps": options.time_steps}
    model = networks.load(options.name, **arguments)
    task = networks.task_of(model, options.name)
    word = options.data or networks.own_data(model, options.name)
    told = networks.data_of(word, model, options.root)
    networks.check_fits(model, told.kind(**told.arguments), options.name)
    title = re.sub(r"[^\w.+=-]+", "_", f"{Path(options.name).name}-on-{Path(word).name}")
    return [
        "test",
        f"--model={networks.TASKS[task]}",
        f"--model.init_args.model={options.name}",
        f"--model.init_args.model_args={json.dumps({'pretrained': True, **arguments})}",
        *told.words,
        *_argument("--data.init_args.eval_batch_size", options.batch_size),
        f"--name={title}",
        *CALLBACKS,
        *further,
    ]


def _argument(option: str, value: Any) -> list[str]:
    return [] if value is None else [f"{option}={value}"]
