"""A network as a plain function of tensors, with names for what goes in and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Run = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or an output.

    Attributes:
        name: in the file.
        batch: the axis of the batch; None for one that no sample has for itself.
        factor: entries along it that one sample has.
    """

    name: str
    batch: int | None = 0
    factor: int = 1

    def axes(self, x: Tensor) -> str:
        """``[batch, 10]`` of a value of it."""
        samples = "batch" if self.factor == 1 else f"{self.factor}*batch"
        sizes = [samples if axis == self.batch else str(size) for axis, size in enumerate(x.shape)]
        return f"[{', '.join(sizes)}]"


@dataclass(frozen=True, kw_only=True)
class Interface:
    """A network as a plain function of tensors.

    Attributes:
        program: the function; in eager mode it is the network itself.
        inputs: in order.
        outputs: in order.
        draw: random inputs for so many samples, from a generator.
        steps: T, of a network whose outputs are those of single steps.
    """

    program: nn.Module
    inputs: Sequence[Port]
    outputs: Sequence[Port]
    draw: Callable[[int, torch.Generator], tuple[Tensor, ...]]
    steps: int | None = None

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What the network itself gives."""
        found = self.program(*inputs)
        return (found,) if isinstance(found, Tensor) else tuple(found)
