"""The parser of commands that are described by YAML: Lightning's, with errors that fit a line."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger

from cli import errors
from datamodules import BaseDataModule
from lightning_modules import BaseTask
from lightning_modules.source import Calibration


class SpikingParser(LightningArgumentParser):
    """Says what is wrong and what was meant, without pages of usage before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # an abbreviation would hide a misspelt option, or change its meaning with a new version
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Write the explained message and leave with status 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        known = [s.lstrip("-") for action in parser._actions for s in action.option_strings]
        classes = errors.subclasses(BaseTask, BaseDataModule, Callback, Logger, Calibration)
        sys.stderr.write(f"fulgurite: error: {errors.explain(message, known, classes)}\n")
        self.exit(2)
