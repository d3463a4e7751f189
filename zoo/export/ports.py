"""A network as a plain function of tensors, with names for what goes in and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.errors import ExportError

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


def steps_of(model: nn.Module) -> int:
    """T of a file that holds all steps.

    Raises:
        ExportError: nobody said it, as in the file of another library or in a plain module.
    """
    steps: Any = getattr(model, "time_steps", None)
    if steps is None:
        raise ExportError(
            f"{type(model).__name__} does not say T, which the file fixes: --time-steps T, or set"
            " model.time_steps"
        )
    return int(steps)


def moving_axes(few: Tensor, more: Tensor) -> list[int]:
    """Axes along which more samples make a tensor longer; none where it has other axes then."""
    if few.dim() != more.dim():
        return []
    return [axis for axis, (a, b) in enumerate(zip(few.shape, more.shape, strict=True)) if a != b]


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
