"""The parser of commands that are described by YAML: Lightning's, with errors that fit a line."""

from __future__ import annotations

import functools
import operator
import sys
from typing import Any, NoReturn, get_args

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger

from cli import complaints, errors, own_code
from lightning_modules import BaseTask
from lightning_modules.source import Calibration


def read_counts_as_counts(options: dict[str, Any]) -> None:
    """Let types that take whole numbers and others try whole ones first.

    ``Union[int, float]`` and ``Union[float, int]`` are equal, so within ``Optional`` Python remembers the one
    that any library has asked for first, and Lightning's ``limit_train_batches: 1``, a batch, may be read as
    1.0, which is all of them.

    Args:
        options: types by name; changed in place.
    """
    for name, hint in options.items():
        kinds = get_args(hint)
        if int in kinds and float in kinds:
            ordered = sorted(kinds, key=lambda kind: kind is not int)
            options[name] = functools.reduce(operator.or_, ordered)


read_counts_as_counts(Trainer.__init__.__annotations__)


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
        classes = errors.subclasses(BaseTask, LightningDataModule, Callback, Logger, Calibration)
        told = complaints.explain(message, known, classes) + own_code.ending(ex)
        sys.stderr.write(f"fulgurite: error: {told}\n")
        self.exit(2)
