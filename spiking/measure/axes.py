"""Which axis of an input is time: said by the caller, known to the model, or seen at its layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from torch import nn

TimeAxis = int | bool | None


class InputAxes:
    """T and B of one call; the number of axes alone decides nothing.

    In order: what the caller says; the size ``default_cfg["input_size"]`` that a model of the zoo states; a
    convolution that takes the input as it is, or with its first two axes folded; the first neuron, which sees
    ``[T, B, ...]``. A network without neurons that says nothing of time takes a batch.

    Args:
        model: that is called.
        x: its input.
        time_axis: 0 or True for ``[T, B, ...]``, 1 for ``[B, T, ...]``, False for a batch ``[B, ...]`` that
            the model encodes itself, None to find out.

    Attributes:
        frames: whether the input has a time axis; None while unknown.
        after_neuron: whether a neuron has run in this call.
    """

    def __init__(self, model: nn.Module, x: Tensor, time_axis: TimeAxis) -> None:
        self.name = type(model).__name__
        self.shape = tuple(x.shape)
        self._input = x
        self.after_neuron = False
        steps = getattr(getattr(model, "_orig_mod", model), "time_steps", None)
        self._stated_steps = steps if isinstance(steps, int) else None
        self._seen_steps: int | None = None
        self._axis = 0 if time_axis is None or time_axis is True else int(time_axis)
        self.frames = self._known(model) if time_axis is None else time_axis is not False
        if time_axis is not None and (self._axis not in (0, 1) or (self.frames and len(self.shape) < 2)):
            raise ValueError(
                f"time_axis must be 0 for [T, B, ...], 1 for [B, T, ...], False for an input without time or"
                f" None to find out, got {time_axis!r} for an input {self.shape}"
            )

    def _known(self, model: nn.Module) -> bool | None:
        if hasattr(model, "count_operations"):  # converted networks take still inputs
            return False
        if len(self.shape) < 2:
            return False
        size = (getattr(model, "default_cfg", None) or {}).get("input_size")
        axes = len(self.shape) - len(size) if size else None
        return {1: False, 2: True}.get(axes) if axes is not None else None

    def see_convolution(self, x: Tensor, space: int) -> None:
        """What a convolution over ``space`` axes takes."""
        if self.frames is not None or self.after_neuron or x.dim() != space + 2:
            return
        if tuple(x.shape) == self.shape:
            self.frames = False
        elif tuple(x.shape) == (self.shape[0] * self.shape[1], *self.shape[2:]):
            self.frames = True

    def see_neuron(self, x: Tensor) -> None:
        """What a layer over ``[T, B, ...]`` takes."""
        first, self.after_neuron = not self.after_neuron, True
        if not first or x.dim() < 2:
            return
        T, B = x.shape[:2]
        self._seen_steps = T
        if self.frames is not None:
            return
        if x is self._input:
            self.frames = True
            return
        timed, still = self.shape[:2] == (T, B), self.shape[0] == B
        if not timed and not still:  # one step at a time, or windows beside the batch axis
            timed = T in (1, self.shape[0]) and B % self.shape[1] == 0
            still = B % self.shape[0] == 0
        if timed != still:
            self.frames = timed

    def resolve(self) -> tuple[int, int, bool]:
        """T, B and whether the input has a time axis.

        Raises:
            ValueError: the input could be read either way.
        """
        if self.frames is None and not self.after_neuron:
            # no neuron, so no time, unless the model speaks of steps and the input has as many
            self.frames = None if self._stated_steps == self.shape[0] > 1 else False
        if self.frames is None:
            raise ValueError(
                f"the input {self.shape} of {self.name} can be read as [T, B, ...] and as a batch [B, ...];"
                " say time_axis=0 if time comes first, time_axis=False if it has no time axis"
            )
        if self.frames:
            return self.shape[self._axis], self.shape[1 - self._axis], True
        return self._stated_steps or self._seen_steps or 1, self.shape[0] if self.shape else 1, False


def passes(leading: tuple[int, ...], T: int, B: int) -> int:
    """For how many steps a call of an operation computes, read off the leading axes of its input."""
    if T == 1:
        return 1
    if len(leading) > 1 and leading == (T, B):
        return T
    each, rest = divmod(leading[0], B)
    return min(max(each, 1), T) if not rest else T
