"""Where the images of a batch lie in a tensor, and how time is put beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Layout(NamedTuple):
    """The batch in one axis, alone or between other factors: ``[..., outer * B * inner, ...]``.

    T steps make T * B of B, in the same place. Networks merge the batch with other axes in either order:
    windows and heads come inside it, ``[B * heads, ...]``, while attention over ``[N, B, E]`` puts tokens
    outside, ``[N * B, E]``.

    Attributes:
        axis: that holds the batch.
        outer: size of the factor outside the batch.
    """

    axis: int = 0
    outer: int = 1

    def unfold(self, x: Tensor, steps: int) -> Tensor:
        """``[..., outer * T * B * inner, ...]`` -> ``[T, B * inner, ...]``, a view.

        The outer factor, where it is not 1, stays behind as an axis of its own, where the merged one was.
        """
        if self.outer == 1:
            x = x.movedim(self.axis, 0) if self.axis else x
            return x.reshape(steps, x.shape[0] // steps, *x.shape[1:])
        at = self.axis
        x = x.unflatten(at, (self.outer, steps, -1))
        return x.movedim((at + 1, at + 2), (0, 1))

    def fold(self, x: Tensor) -> Tensor:
        """``[T, B * inner, ...]`` -> ``[..., outer * T * B * inner, ...]``; undoes `unfold`."""
        at = self.axis
        if self.outer == 1:
            x = x.flatten(0, 1)
            return x.movedim(0, at) if at else x
        return x.movedim((0, 1), (at + 1, at + 2)).flatten(at, at + 2)

    def suffix(self) -> str:
        """For names: empty for the batch in the first axis."""
        text = str(self.axis or "")
        return text if self.outer == 1 else f"{self.axis}_{self.outer}"


FIRST = Layout()
