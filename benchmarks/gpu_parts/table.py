"""Rows as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import _timing

from gpu_parts.work import KEYS

if TYPE_CHECKING:
    from collections.abc import Sequence

TITLES = {
    "kernels": "Kernels against the oracle",
    "bandwidth": "Kernels against a copy on the device",
    "steps": "A training step, bfloat16 autocast",
    "conversion": "Conversion",
    "quickstart": "The quick start, killed and resumed",
    "tests": "Tests",
    "cifar10": "CIFAR-10",
}
NOTES = {
    # not measured here
    "steps": "SpikingJelly's authors on an RTX 4090, SEW-ResNet18, 224 x 224, T = 4, batch 112, bfloat16:"
    " eager 482 images/s and 10.08 GiB, compiled 774 and 6.91, Triton 868 and 8.00.",
    "bandwidth": "Forward moves two tensors, forward with backward five; what the kernel keeps for the way"
    " back comes on top.",
}


def markdown(head: str, rows: Sequence[dict[str, Any]]) -> str:
    """A page with a table for each part.

    Args:
        head: what was measured, and on what.
        rows: of `gpu_parts.work.Record`.
    """
    blocks = ["# On a GPU", head]
    for part, title in TITLES.items():
        own = [row for row in rows if row["part"] == part]
        if not own:
            continue
        columns = list(dict.fromkeys(key for row in own for key in row if key not in KEYS))
        body = [[row["case"], *(row.get(column, "") for column in columns)] for row in own]
        blocks += [f"## {title}", _timing.table(["case", *columns], body)]
        if part in NOTES:
            blocks.append(NOTES[part])
    return "\n\n".join(blocks) + "\n"
