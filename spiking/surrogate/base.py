"""What all surrogates share: a step forward, a smooth slope backward."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


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

    spiking: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        """Check the parameters."""
        own = self.parameters()
        for name, value in own.items():
            if not math.isfinite(value):
                raise ValueError(f"{type(self).__name__}: {name} must be finite, got {value!r}")
        if self._positive and any(own[name] <= 0 for name in self._positive):
            raise ValueError(f"{type(self).__name__}: {', '.join(self._positive)} must be > 0, got {own}")

    @property
    def _positive(self) -> tuple[str, ...]:
        return ("alpha",) if "alpha" in self.parameters() else ()

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
