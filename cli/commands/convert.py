"""``fulgurite convert``: an ANN into a spiking network, measured at every T, saved as a folder of the zoo."""

from __future__ import annotations

import dataclasses
import shlex
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from jsonargparse import ActionConfigFile

import zoo
from cli.console import terminal
from cli.errors import CommandError, summary
from cli.parser import SpikingParser
from cli.run.folder import claim, move_aside, run_folder, typed_seed
from cli.run.lock import release_all
from cli.run.package import anonymous
from datamodules import BaseDataModule
from lightning_modules.conversion import run as conversion_run
from lightning_modules.conversion.run import ConversionRun
from lightning_modules.report_page import write_page

if TYPE_CHECKING:
    from collections.abc import Sequence

DESCRIPTION = """\
Convert a trained ANN into a spiking network: accuracy, firing rate and energy at every T next to the ANN,
and a folder of the zoo that zoo.load and fulgurite publish take."""


PLAN = [field.name for field in dataclasses.fields(ConversionRun) if field.name != "data"]


def run(words: Sequence[str]) -> None:
    """Convert.

    Args:
        words: options after ``fulgurite convert``.
    """
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # lightning 2.6 on torch 2.14
    parser = _parser()
    config = parser.parse_args(list(words))
    settings = parser.dump(config, skip_none=False)
    try:
        _convert(parser, config, settings, words)
    finally:
        release_all()


def _parser() -> SpikingParser:
    parser = SpikingParser(prog="fulgurite convert", description=DESCRIPTION)
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="A YAML file of these options.")
    parser.add_argument("--seed_everything", type=int, default=0, help="Seed of everything random.")
    parser.add_argument(
        "--output", type=str, default=None, help="Folder to write; runs/conversion-NAME if missing."
    )
    parser.add_argument(
        "--report", action="store_true", help="Write all of it as one page of HTML, report.html, too."
    )
    parser.add_subclass_arguments(BaseDataModule, "data", required=True)
    parser.add_class_arguments(ConversionRun, nested_key=None, as_group=False, skip={"data"})
    return parser


def _convert(parser: SpikingParser, config: Any, settings: str, words: Sequence[str]) -> None:
    console = terminal(width=120)
    started = time.monotonic()
    pl.seed_everything(config.seed_everything, verbose=False)
    names = [str(getattr(path, "relative", path)) for path in config.config or []]
    method = str(config.method)
    seed = typed_seed(words, config.seed_everything)
    folder = claim(
        Path(config.output or run_folder(names, f"conversion-{method}", seed=seed)), own=config.output is None
    )
    made = parser.instantiate_classes(config)
    plan = ConversionRun(data=made.data, **{k: made[k] for k in PLAN})
    ann, snn = plan.convert()
    console.print(str(snn.report), highlight=False, markup=False)
    comparison = plan.compare(ann, snn)
    console.print(conversion_run.table(comparison, f"{snn.report.method}: {folder}"))
    console.print(
        conversion_run.legend(comparison, plan.measured(comparison)), highlight=False, soft_wrap=True
    )
    if (folder / "config.json").exists():
        console.print(f"the earlier conversion is kept as {move_aside(folder)}", soft_wrap=True)
    try:
        conversion_run.write(
            folder,
            plan,
            snn,
            comparison,
            command=anonymous(shlex.join(["fulgurite", "convert", *words])),
            settings=anonymous(settings),
            seed=config.seed_everything,
            seconds=round(time.monotonic() - started, 1),
        )
    except (OSError, zoo.NotRebuildableError) as error:
        raise CommandError(summary(error)) from error
    if config.report:
        console.print(f"report: {write_page(folder)}", soft_wrap=True)
    console.print(f'written to {folder}: zoo.load("local-dir:{folder}") loads it', soft_wrap=True)
