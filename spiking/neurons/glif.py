"""GLIF: LIF with learnt gates between leak, integration and reset."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from spiking import functional
from spiking.arguments import integer
from spiking.layers import check_time_steps
from spiking.neurons.base import Neuron
from spiking.reference.neurons import state_dtype

if TYPE_CHECKING:
    from spiking.neurons.base import SurrogateLike

GATE_SPREAD = 0.1  # raw gates start uniform in +-0.1, half open each


class GLIF(Neuron):
    """Gated LIF (2210.13768); all parameters are squashed by a sigmoid.

    ``v = k1 v - (1 - alpha) decay + x (1 - beta (1 - conduct[t])) - k1 v gamma s - (1 - gamma) reset s`` with
    ``k1 = 1 - alpha (1 - tau)`` and ``s`` the spikes of the step before.

    Args:
        time_steps: T, fixed by the parameter ``conduct``.
        channels: C for parameters of their own in every channel of ``[T, B, C, ...]``; None for one set.
        surrogate: see `Neuron`.
        backend: see `Neuron`.
    """

    state_names: ClassVar[tuple[str, ...]] = ("v", "spikes")

    parameter_names: ClassVar[tuple[str, ...]] = (
        "alpha",
        "beta",
        "gamma",
        "tau",
        "v_threshold",
        "linear_decay",
        "v_subreset",
        "conduct",
    )

    def __init__(
        self,
        time_steps: int,
        channels: int | None = None,
        surrogate: SurrogateLike = "sigmoid",
        backend: str = "auto",
    ) -> None:
        super().__init__(1.0, surrogate, backend)
        self.time_steps = check_time_steps(time_steps)
        if channels is not None:
            integer("channels", channels)
        self.channels = channels
        size = () if channels is None else (channels,)

        def squashed(value: float, *axes: int) -> nn.Parameter:
            return nn.Parameter(torch.full((*axes, *size), math.log(value / (1.0 - value))))

        def gate() -> nn.Parameter:
            return nn.Parameter(torch.empty(size).uniform_(-GATE_SPREAD, GATE_SPREAD))

        self.alpha, self.beta, self.gamma = gate(), gate(), gate()
        self.tau = squashed(0.25)
        del self.v_threshold  # a learnt one here
        self.register_parameter("v_threshold", squashed(0.5))
        self.linear_decay = squashed(0.5 / (2 * time_steps))
        self.v_subreset = squashed(0.5)
        self.conduct = squashed(0.5, time_steps)

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """``[5, C or 1]`` (keep, decay, gamma, reset, theta) and the conductance ``[T, C or 1]``."""
        alpha, beta, gamma = self.alpha.sigmoid(), self.beta.sigmoid(), self.gamma.sigmoid()
        keep = 1.0 - alpha * (1.0 - self.tau.sigmoid())
        decay = (1.0 - alpha) * self.linear_decay.sigmoid()
        reset = (1.0 - gamma) * self.v_subreset.sigmoid()
        theta = torch.as_tensor(self.v_threshold).sigmoid()
        conduct = 1.0 - beta * (1.0 - self.conduct.sigmoid())
        table = torch.stack([keep, decay, gamma, reset, theta])
        return table.reshape(5, -1), conduct.reshape(conduct.shape[0], -1)

    def initial_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Potential 0 and no spike before."""
        zero = torch.zeros_like(x, dtype=state_dtype(x))
        return zero, zero.clone()

    @property
    def causal(self) -> bool:
        """Conductances belong to absolute steps, so a sequence cannot be cut."""
        return False

    def run(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None, keep_state: bool
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """See `Neuron.run`; the state is the potential and the last spikes."""
        v, s = state or (None, None)
        if self.channels is not None and x.dim() > 2 and x.shape[2] != self.channels:
            raise ValueError(f"GLIF was built for C = {self.channels}, got [T, B, C, ...] = {tuple(x.shape)}")
        coefficients, conductance = self.coefficients()
        return functional.glif(
            x,
            coefficients,
            conductance,
            v,
            s,
            surrogate=self.surrogate,
            backend=self.backend,
            keep_state=keep_state,
        )

    @override
    def extra_repr(self) -> str:
        return f"time_steps={self.time_steps}, channels={self.channels}"
