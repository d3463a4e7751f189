"""How a signal is laid out over time inside a converted network, and the units that change the layout.

A tensor of the graph is *static* (the same at every step, ``[B, ...]``, computed once), a *step* signal
``x_t`` or a *mean* signal ``m_t = (x_1 + ... + x_t) / t``, both folded to ``[T * B, ...]`` with time outside.
Neurons see them unfolded, ``[T, B, ...]``.

Affine operations commute with the running mean, so they run on either kind; a nonlinear operation F runs on
means, which is expectation compensation: ``mean(y_1..y_t) = F(mean(x_1..x_t))`` (ECMT, arXiv 2502.21193).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from spiking.functional.codes import CodeState, increments, running_mean
from spiking.neurons.base import Temporal
from spiking.reference.neurons import state_dtype

if TYPE_CHECKING:
    from conversion.network.clock import Clock
    from conversion.network.layout import Layout


# what a tensor of the graph is to time; see above
Domain = Literal["step", "mean"]
# "constant" depends on no image, "sized" on no image but on the size of the batch
Form = Literal["constant", "sized", "static", "step", "mean"]


class Unfold(nn.Module):
    """``[T * B, ...]``, or a static ``[B, ...]``, -> ``[T, B, ...]``; a view either way.

    Args:
        clock: of the network.
        static: whether the input is the same at every step.
        layout: where the input holds the batch.
    """

    def __init__(self, clock: Clock, static: bool, layout: Layout) -> None:
        super().__init__()
        self.clock, self.static, self.layout = clock, static, layout

    def forward(self, x: Tensor) -> Tensor:
        """``[(T *) B, ...]`` -> ``[T, B, ...]``."""
        if not self.static:
            return self.layout.unfold(x, self.clock.window)
        once = self.layout.unfold(x, 1)
        return once.expand(self.clock.window, *once.shape[1:])

    @override
    def extra_repr(self) -> str:
        return "static" if self.static else ""


class Fold(nn.Module):
    """``[T, B, ...]`` -> ``[T * B, ...]``.

    Args:
        layout: where the output holds the batch.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, ...]`` -> ``[T * B, ...]``."""
        return self.layout.fold(x)


class FoldedSize(nn.Module):
    """B -> T * B, for operations that name the size of the folded axis."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def forward(self, size: Any) -> Any:
        """B -> T * B."""
        return size * self.clock.window


class RunningMean(Temporal):
    """``x_t`` -> ``m_t``, the mean of the steps up to t; ``[T, B, ...]``, float32 inside."""

    state_names: ClassVar[tuple[str, ...]] = ("steps", "sum")

    @override
    def initial_state(self, x: Tensor) -> tuple[int, Tensor]:
        return 0, torch.zeros_like(x, dtype=state_dtype(x))

    def run(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """Running means; the state is (steps seen, their sum)."""
        means, after = running_mean(x, state)
        return means, _alone(after) if keep_state else None


class Increments(Temporal):
    """``m_t`` -> ``x_t = t m_t - (t - 1) m_(t - 1)``, whose running means are given; float32 inside."""

    state_names: ClassVar[tuple[str, ...]] = ("steps", "sum")

    @override
    def initial_state(self, x: Tensor) -> tuple[int, Tensor]:
        return 0, torch.zeros_like(x, dtype=state_dtype(x))

    def run(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """Steps; the state is (steps seen, their sum)."""
        steps, after = increments(x, state)
        return steps, _alone(after) if keep_state else None


def _alone(state: CodeState) -> CodeState:
    """The state without the steps before the last one, which a view would keep alive."""
    return state[0], state[1].clone()


def axes_of(shape: tuple[int, ...]) -> str:
    """A batch of samples of this shape, for a message: ``[B, C, H, W]`` if they are images."""
    return "[B, C, H, W]" if len(shape) == 3 else f"[B, {', '.join(map(str, shape))}]"


class Encode(nn.Module):
    """Checks the images that enter a converted network, ``[B, C, H, W]``, or whatever its source takes.

    Args:
        shape: ``(C, H, W)`` that the network was exported for, or the shape of one sample.
        tokens: whether the inputs are numbers of tokens.
    """

    def __init__(self, shape: tuple[int, ...], tokens: bool = False) -> None:
        super().__init__()
        self.shape, self.tokens = tuple(shape), tokens

    def forward(self, x: Tensor) -> Tensor:
        """The images, unchanged.

        Raises:
            TypeError: no tensor of floating-point numbers, or of integers where those are taken.
            ValueError: another number of axes or channels, another size, no sample, NaN or infinity.
        """
        if torch.compiler.is_compiling():
            return x
        if not isinstance(x, torch.Tensor) or x.is_floating_point() == self.tokens:
            got = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
            what = "images" if len(self.shape) == 3 else "inputs"
            kind = "integer" if self.tokens else "floating-point"
            raise TypeError(f"expected {kind} {what} {axes_of(self.shape)}, got {got}")
        self._check_shape(tuple(x.shape))
        if x.is_floating_point() and x.device.type != "meta" and not bool(x.detach().sum().isfinite()):
            bad = int((~x.detach().isfinite()).sum())
            if bad:
                raise ValueError(
                    f"{bad} of {x.numel()} input values are NaN or infinite; a neuron would turn them into"
                    " silence, so they are refused"
                )
        return x

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        axes, wanted = len(shape), len(self.shape)
        if axes == wanted + 2:
            raise ValueError(
                f"a converted network takes still images {axes_of(self.shape)} and makes its own steps, got"
                f" {axes} axes {shape}; give the frames one by one, or their mean"
            )
        if axes != wanted + 1:
            hint = "; add the batch axis with x.unsqueeze(0)" if axes == wanted else ""
            raise ValueError(f"expected {axes_of(self.shape)}, got {axes} axes {shape}{hint}")
        if shape[1:] != self.shape and wanted != 3:
            raise ValueError(
                f"expected {axes_of(self.shape)}, got {shape}; sizes are fixed in the converted graph, so"
                " convert the source for this one"
            )
        if shape[1:] != self.shape:
            raise ValueError(
                f"expected C, H, W = {self.shape}, got {shape[1:]}: other {self._way_out(shape[1:])}"
            )
        if 0 in shape:
            raise ValueError(f"empty input {shape}: every axis needs at least one element")

    def _way_out(self, size: tuple[int, ...]) -> str:
        """What to do with images of another size."""
        if size[0] != self.shape[0]:
            return f"channels than the network was converted for; convert a source of C = {size[0]}"
        return (
            "pixels than the network was converted for, and sizes are fixed in the converted graph;"
            f" conversion.resize(network, source, {size}) exports the source again"
        )

    @override
    def extra_repr(self) -> str:
        return f"shape={self.shape}"


class Decode(nn.Module):
    """Logits of all steps ``[T, B, ..., K]`` -> those that count, or their mean ``[B, ..., K]``."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def forward(self, logits: Tensor, steps: bool = False) -> Tensor:
        """``[window, B, ..., K]`` -> ``[T, B, ..., K]`` with ``steps``, else ``[B, ..., K]``."""
        first = self.clock.first
        logits = logits[first : first + self.clock.time_steps]
        return logits if steps else logits.mean(dim=0)
