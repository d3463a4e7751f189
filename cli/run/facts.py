"""Facts of the data that a task takes over: sizes of its input, number of classes, limits of actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from cli.errors import CommandError, subclasses
from datamodules import BaseDataModule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch.cli import LightningArgumentParser


def link(parser: LightningArgumentParser) -> None:
    """Let the data module tell the task what it has to tell, whatever its kind; the parser skips the rest."""
    kinds = subclasses(BaseDataModule).values()
    for name in dict.fromkeys(name for kind in kinds for name in getattr(kind, "linked_facts", ())):
        parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")


def refuse_other_facts(data: Any, settings: Any, words: Sequence[str]) -> None:
    """Compare what the user typed with the data; linking drops it without a word.

    Args:
        data: the data module.
        settings: what was parsed.
        words: what was typed.

    Raises:
        CommandError: they differ.
    """
    values = settings.model.get("init_args") or {}
    for name in _typed(getattr(data, "linked_facts", ()), settings, words):
        fact = getattr(data, name)
        fact = list(fact) if isinstance(fact, tuple) else fact  # as YAML brings it
        value = values.get(name)
        if value is not None and value != fact:
            raise CommandError(
                f"model.init_args.{name} is {value}, but {type(data).__name__} has {name} = {fact}; leave it"
                " out, it is taken from the data"
            )


def _typed(facts: Sequence[str], settings: Any, words: Sequence[str]) -> list[str]:
    given: set[str] = set()
    for path in settings.get("config") or []:
        content = yaml.safe_load(path.read_text()) or {}
        model = content.get("model") if isinstance(content, dict) else None
        if isinstance(model, dict):
            given |= set(model.get("init_args") or {})
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("--model."):
            given.add(option.removeprefix("--model.").removeprefix("init_args."))
    return [name for name in facts if name in given]
