"""Parallel spiking neurons: all steps in one matrix product, no reset (2304.12760)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from spiking import functional
from spiking.arguments import flag, integer, number
from spiking.budget import require_matrix
from spiking.layers import check_time_steps
from spiking.neurons.base import Neuron
from spiking.reference.neurons import state_dtype

if TYPE_CHECKING:
    from spiking.neurons.base import SurrogateLike


class PSN(Neuron):
    """Parallel spiking neuron: ``S = H(weight X + bias)``; every step sees all others.

    Args:
        time_steps: T, fixed by the weight ``[T, T]``.
        surrogate: see `Neuron`.
        backend: see `Neuron`; there is one implementation, a matrix product.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def __init__(self, time_steps: int, surrogate: SurrogateLike = "atan", backend: str = "auto") -> None:
        super().__init__(1.0, surrogate, backend)
        self.time_steps = check_time_steps(time_steps)
        require_matrix(type(self).__name__, time_steps, time_steps)
        self.weight = nn.Parameter(torch.empty(time_steps, time_steps))
        self.bias = nn.Parameter(torch.full((time_steps, 1), -1.0))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    @property
    def causal(self) -> bool:
        """False: every step depends on all others."""
        return False

    def _check(self, x: Tensor) -> None:
        functional.check(x)
        if x.dim() < 2:
            raise ValueError(f"{type(self).__name__} takes currents [T, B, ...], got {tuple(x.shape)}")
        if x.shape[0] != self.time_steps:
            raise ValueError(
                f"{type(self).__name__} was built for T = {self.time_steps}, got T = {x.shape[0]};"
                " its parameters fix T"
            )

    def run(self, x: Tensor, state: Tensor | None, keep_state: bool) -> tuple[Tensor, Tensor | None]:
        """See `Neuron.run`; there is no state."""
        self._check(x)
        return functional.psn(x, self.weight, self.bias, surrogate=self.surrogate), None

    @override
    def extra_repr(self) -> str:
        return f"time_steps={self.time_steps}, surrogate={type(self.surrogate).__name__.lower()}"


class MaskedPSN(PSN):
    """PSN whose weight is gradually masked to the last ``order`` steps.

    The effective weight is ``(lambda M + 1 - lambda) * weight``; training raises the buffer ``_lambda_``
    from 0 to 1 (`set_strength`). At 1 the neuron is causal.

    Args:
        time_steps: T.
        order: k, how many steps a step may see, itself included.
        strength: lambda at the start.
        surrogate: see `Neuron`.
        backend: see `PSN`.
    """

    state_names: ClassVar[tuple[str, ...]] = ("seen",)

    mask0: Tensor
    mask1: Tensor
    _lambda_: Tensor

    def __init__(
        self,
        time_steps: int,
        order: int = 2,
        strength: float = 0.0,
        surrogate: SurrogateLike = "atan",
        backend: str = "auto",
    ) -> None:
        super().__init__(time_steps, surrogate, backend)
        if integer("order", order) > time_steps:
            raise ValueError(f"order must be an integer from 1 to T = {time_steps}, got {order!r}")
        self.order = order
        ones = torch.ones(time_steps, time_steps)
        self.register_buffer("_lambda_", torch.tensor(0.0))
        self.register_buffer("mask0", ones)
        self.register_buffer("mask1", ones.tril() * ones.triu(1 - order))
        self.set_strength(strength)

    def set_strength(self, strength: float) -> None:
        """Set lambda, 0 (a plain PSN) to 1 (fully masked)."""
        if not 0.0 <= number("strength", strength) <= 1.0:
            raise ValueError(f"strength must lie in [0, 1], got {strength!r}")
        self._lambda_.fill_(strength)

    @property
    def causal(self) -> bool:
        """True once the weight is fully masked: no step sees a later one."""
        return float(self._lambda_) >= 1.0

    def masked_weight(self) -> Tensor:
        """The effective weight ``[T, T]``."""
        return (self._lambda_ * self.mask1 + (1.0 - self._lambda_) * self.mask0) * self.weight

    def initial_state(self, x: Tensor) -> Tensor:
        """No currents yet: ``[0, ...]``."""
        return x.new_zeros((0, *x.shape), dtype=state_dtype(x))

    def run(self, x: Tensor, state: Tensor | None, keep_state: bool) -> tuple[Tensor, Tensor | None]:
        """See `Neuron.run`; the state holds all currents so far ``[t, ...]``."""
        if state is None and not keep_state:
            self._check(x)
            weight = self.masked_weight()
            return functional.psn(x, weight, self.bias, surrogate=self.surrogate), None
        before = 0 if state is None else state.shape[0]
        functional.check(x, *(state[:1] if state is not None else ()))
        now = before + x.shape[0]
        if now > (self.time_steps or 0):
            raise ValueError(f"MaskedPSN was built for T = {self.time_steps}, step {now} goes beyond")
        wide = x.to(state_dtype(x))
        seen = wide if state is None else torch.cat([state, wide])
        weight = self.masked_weight()[before:now, :now].to(seen.dtype)
        h = torch.addmm(self.bias[before:now].to(seen.dtype), weight, seen.flatten(1))
        return self.surrogate(h).view(x.shape).to(x.dtype), seen


class SlidingPSN(Neuron):
    """Sliding PSN: one filter of ``order`` weights over time; causal, T is free.

    Args:
        order: k.
        exp_init: start from ``2^-i`` for the current i steps ago, else from a uniform distribution.
        surrogate: see `Neuron`.
        backend: see `PSN`.
    """

    state_names: ClassVar[tuple[str, ...]] = ("seen",)

    parameter_names: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def __init__(
        self,
        order: int = 2,
        exp_init: bool = True,
        surrogate: SurrogateLike = "atan",
        backend: str = "auto",
    ) -> None:
        super().__init__(1.0, surrogate, backend)
        self.order = integer("order", order)
        if flag("exp_init", exp_init) and order > 100:
            raise ValueError(
                f"order must be at most 100, got {order}: 2^-order is no number of float32 any more"
            )
        if exp_init:
            self.weight = nn.Parameter(2.0 ** torch.arange(1 - order, 1, dtype=torch.get_default_dtype()))
        else:
            self.weight = nn.Parameter(torch.empty(order))
            nn.init.kaiming_uniform_(self.weight.data.view(1, -1), a=math.sqrt(5))
        self.bias = nn.Parameter(torch.tensor(-1.0))

    def initial_state(self, x: Tensor) -> Tensor:
        """The ``k - 1`` currents before the first: none."""
        return x.new_zeros((self.order - 1, *x.shape), dtype=state_dtype(x))

    def run(self, x: Tensor, state: Tensor | None, keep_state: bool) -> tuple[Tensor, Tensor]:
        """See `Neuron.run`; the state holds the last ``k - 1`` currents."""
        functional.check(x, *(state[:1] if state is not None else ()))
        return functional.sliding_psn(x, self.weight, self.bias, state, surrogate=self.surrogate)

    @override
    def extra_repr(self) -> str:
        return f"order={self.order}, surrogate={type(self.surrogate).__name__.lower()}"
