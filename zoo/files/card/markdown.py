"""Words and tables of a card."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def slug(text: str) -> str:
    """``text`` as an identifier of the Hub."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """A table, the first row on top."""
    cells = [[c.replace("|", "\\|").replace("\n", " ") for c in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])
