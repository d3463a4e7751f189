"""Operations between the images of a batch: each step apart from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

if TYPE_CHECKING:
    from conversion.network.clock import Clock
    from conversion.network.layout import Layout


class Apart(nn.Module):
    """``[..., T * B, ...]``, or a static ``[...]``, -> ``[T, ...]``.

    Args:
        clock: of the network.
        layout: where the input holds the batch; None for a static one, which is the same at every step.
    """

    def __init__(self, clock: Clock, layout: Layout | None) -> None:
        super().__init__()
        self.clock, self.layout = clock, layout

    def forward(self, x: Tensor) -> Tensor:
        """Time in an axis of its own, in front."""
        if self.layout is None:
            return x.expand(self.clock.window, *x.shape)
        at, outer = self.layout
        split: Tensor = x.unflatten(at, (outer, self.clock.window, -1))
        return split.movedim(at + 1, 0).flatten(at + 1, at + 2)


class Together(nn.Module):
    """``[T, ..., B, ...]`` -> ``[..., T * B, ...]``.

    Args:
        layout: where the output holds the batch.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        """Time beside the batch."""
        at, outer = self.layout
        steps_inside: Tensor = x.unflatten(at + 1, (outer, -1)).movedim(0, at + 1)
        return steps_inside.flatten(at, at + 2)


class StepByStep(nn.Module):
    """An operator that sees all images of one step, and no other step.

    Args:
        target: the operator.
        args: its arguments; nodes stand for the tensors that `forward` takes, in order.
        kwargs: likewise.
        varying: which of these have a time axis ``[T, ...]``.
    """

    def __init__(
        self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], varying: tuple[bool, ...]
    ) -> None:
        super().__init__()
        nodes: list[fx.Node] = []
        fx.node.map_arg((args, kwargs), nodes.append)
        places = {node: _Place(i) for i, node in enumerate(dict.fromkeys(nodes))}
        self.target, self.varying = target, varying
        self.args, self.kwargs = fx.node.map_arg((args, kwargs), places.__getitem__)

    def forward(self, *operands: Any) -> Tensor:
        """``[T, ...]`` of each operand that varies -> ``[T, ...]``."""
        steps = next(len(x) for x, varies in zip(operands, self.varying, strict=True) if varies)
        return torch.stack([self._at(step, operands) for step in range(steps)])

    def _at(self, step: int, operands: tuple[Any, ...]) -> Tensor:
        now = [x[step] if varies else x for x, varies in zip(operands, self.varying, strict=True)]
        args, kwargs = (_put(part, now) for part in (self.args, self.kwargs))
        out: Tensor = self.target(*args, **kwargs)
        return out


class _Place(int):
    """The number of an operand."""


def _put(value: Any, operands: list[Any]) -> Any:
    if isinstance(value, _Place):
        return operands[value]
    if isinstance(value, dict):
        return {k: _put(v, operands) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_put(v, operands) for v in value)
    return value
