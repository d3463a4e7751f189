"""Where tables go."""

from __future__ import annotations

from typing import Any


def terminal(width: int = 160) -> Any:
    """The terminal; a pipe has no width and gets `width` columns, as 80 would fold tables."""
    from rich.console import Console

    made = Console()
    if not made.is_terminal:
        made.width = width
    return made
