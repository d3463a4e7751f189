"""The parser of commands that take a few words: its errors are one line and say what was meant."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from cli.errors import did_you_mean, fail


class WordParser(argparse.ArgumentParser):
    """argparse without abbreviations, which would change their meaning with new options.

    Args:
        **settings: of ``argparse.ArgumentParser``.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Write the message and leave with status 2."""
        hint = ""
        if found := re.match(r"unrecognized arguments: (.*?)(--?[\w-]+)", message):
            known = [word for action in self._actions for word in action.option_strings]
            message = f"there is no option {found[2]}" if not found[1] else message
            hint = did_you_mean(found[2], known)
        fail(f"{message}{hint}\n  {self.prog} --help")
