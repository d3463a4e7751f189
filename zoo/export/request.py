"""What is asked of a format, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


def quiet(message: str) -> None:
    """Says nothing."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """How a network is to be written.

    Attributes:
        step: one step with explicit states instead of all T steps.
        sequence: frames ``[T, B, ...]`` instead of still images ``[B, ...]``.
        metadata: what the file should say about the network, as plain words; see `zoo.export.metadata`.
        say: is told what is being done, since it takes a while.
    """

    step: bool = False
    sequence: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    say: Callable[[str], None] = quiet


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written, and how it was checked.

    Attributes:
        path: the file.
        inputs: their names and axes, such as ``{"images": "[batch, 3, 224, 224]"}``.
        outputs: likewise.
        checked: what was compared with the network itself, and what came out, in words.
        gap: the largest difference of an output from the network's own, in shares of its largest output.
    """

    path: Path
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    checked: str
    gap: float = 0.0
