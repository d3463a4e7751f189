"""Which shipped files ask for the same code: they differ in numbers alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


def kind(value: Any) -> Any:
    """``value`` without its numbers; of a list, the kinds that are in it."""
    if isinstance(value, dict):
        return {key: kind(part) for key, part in value.items()}
    if isinstance(value, list):
        return sorted({json.dumps(kind(part), sort_keys=True) for part in value})
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else value


def one_of_each(paths: Iterable[Path], told: Callable[[dict[str, Any]], Any]) -> list[Path]:
    """The first file of each kind of ``told(content)``, in the order of their names."""
    found: dict[str, Path] = {}
    for path in paths:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        found.setdefault(json.dumps(kind(told(content)), sort_keys=True), path)
    return sorted(found.values())
