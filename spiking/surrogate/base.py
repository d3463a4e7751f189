"""What all surrogates share: a step forward, a smooth slope backward."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from spiking.arguments import shown

if TYPE_CHECKING:
    from collections.abc import Mapping


SMALLEST, LARGEST = 1e-6, 1e6  # of a parameter


class _Step(torch.autograd.Function):
    """Heaviside forward, the surrogate's derivative backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, surrogate: Surrogate) -> Tensor:
        return (x >= 0).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Surrogate], output: Tensor) -> None:
        x, ctx.surrogate = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate.derivative(x), None


@dataclass(frozen=True)
class Surrogate:
    """Base class.

    Attributes:
        spiking: ``False`` makes a call return the smooth primitive instead of the step.
    """

    above: ClassVar[Mapping[str, float]] = {}  # what a parameter must be greater than, if it is not 0
    may_vanish: ClassVar[frozenset[str]] = frozenset()  # parameters that may be 0

    spiking: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            TypeError: no number, or ``spiking`` no truth value.
            ValueError: outside of the domain, which is at most [`SMALLEST`, `LARGEST`], and 0 for slopes that
                may vanish (`may_vanish`): there, slopes are finite in float32 for all currents.
        """
        label = type(self).__name__
        if not isinstance(self.spiking, bool):
            raise TypeError(f"{label}: spiking must be True or False, got {shown(self.spiking)}")
        for name, value in self.parameters().items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{label}: {name} must be a number, got {shown(value)}")
            if not abs(value) < math.inf:
                raise ValueError(f"{label}: {name} must be finite, got {shown(value)}")
            if value == 0 and name in self.may_vanish:
                continue
            if not self.above.get(name, 0.0) < value:
                low = f">= 0, got {shown(value)}" if name in self.may_vanish else self._above(name, value)
                raise ValueError(f"{label}: {name} must be {low}")
            if not self.above.get(name, 0.0) + SMALLEST <= value <= LARGEST:
                raise ValueError(
                    f"{label}: {name} must lie between {self.above.get(name, 0.0) + SMALLEST:.7g} and"
                    f" {LARGEST:g}, where its slopes are numbers of float32, got {shown(value)}"
                )

    def _above(self, name: str, value: float) -> str:
        return f"> {self.above.get(name, 0.0):g}, got {shown(value)}"

    def parameters(self) -> dict[str, float]:
        """The numbers of the formula, by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "spiking"}

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` of any shape -> spikes of the same shape and dtype."""
        if not self.spiking:
            return self.primitive(x)
        if torch.compiler.is_exporting():  # a graph for inference needs no surrogate
            return (x >= 0).to(x.dtype)
        spikes: Tensor = _Step.apply(x, self)
        return spikes

    def derivative(self, x: Tensor) -> Tensor:
        """Slope at ``x``, elementwise."""
        raise NotImplementedError

    def primitive(self, x: Tensor) -> Tensor:
        """Smooth function whose derivative is `derivative`.

        Raises:
            NotImplementedError: for the surrogates that are defined by their slope alone.
        """
        raise NotImplementedError(f"{type(self).__name__} is defined by its slope and has no primitive")
