"""The neurons of spiking actors: LIF, current-based LIF, dynamic neurons, LIF with a learnt leak.

All fire where the potential is above 0.5, and not at it; the slope is 1 within 0.5 of the threshold, and the
gradient takes the reset's way, too (code of 2505.24161).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from spiking import IF, LIF, PLIF, Neuron
from spiking.reference.neurons import state_dtype
from spiking.surrogate import LeakyKReLU, Rect

if TYPE_CHECKING:
    from collections.abc import Callable


# our neurons fire where they reach a threshold: at the next float32, that is where they are above it
THRESHOLD = float(np.nextafter(np.float32(0.5), np.float32(1.0)))
ENCODER_THRESHOLD = float(np.nextafter(np.float32(0.999), np.float32(1.0)))
LEAK = 4.0  # tau: three quarters of the potential stay


def encoder_neuron() -> Neuron:
    """IF with the threshold 0.999 and soft reset, whose gradient passes straight through."""
    return IF(v_threshold=ENCODER_THRESHOLD, v_reset=None, surrogate=LeakyKReLU(k=1.0, leak=1.0))


class CurrentLIF(LIF):
    """LIF behind a current that halves at every step: ``c <- c / 2 + x``, ``v <- 3/4 v (1 - s) + c``.

    The neuron of pop-SAN (2010.09635), called CLIF there and in 2505.24161; `spiking.CLIF` is another one.
    """

    def __init__(self) -> None:
        super().__init__(tau=LEAK, decay_input=False, v_threshold=THRESHOLD, surrogate=Rect())

    def initial_state(self, x: Tensor) -> Any:
        """Current and potential at 0."""
        zero = torch.zeros_like(x, dtype=state_dtype(x))
        return zero, zero.clone()

    def run(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """See `Neuron.run`; the state is ``(c, v)``."""
        T = len(x)
        past = torch.arange(T, device=x.device)
        weights = torch.where(past <= past[:, None], 0.5 ** (past[:, None] - past).clamp(min=0), 0.0)
        current = (weights.to(x.dtype) @ x.reshape(T, -1)).reshape(x.shape)
        if state is not None:
            left = 0.5 ** (past + 1.0)
            current = current + left.to(x.dtype).view(-1, *[1] * (x.dim() - 1)) * state[0]
        spikes, v = super().run(current, None if state is None else state[1], keep_state)
        return spikes, (current[-1], v) if keep_state else None


class DynamicNeuron(Neuron):
    """The second-order neuron of MDC-SAN (2106.07854), with the constants of the code of 2505.24161.

    ``c <- c / 2 + x``; after a spike ``v <- 0.021`` and ``u <- u + 0.132``; then ``v <- v^2 - u + c`` and
    ``u <- u - 0.172 v + 0.529 u``, both from the values before.
    """

    def __init__(self) -> None:
        super().__init__(THRESHOLD, Rect())

    def initial_state(self, x: Tensor) -> Any:
        """Current, potential, recovery and last spike at 0."""
        zero = torch.zeros_like(x, dtype=state_dtype(x))
        return zero, zero.clone(), zero.clone(), zero.clone()

    def run(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """See `Neuron.run`; the state is ``(c, v, u, s)``."""
        c, v, u, s = self.initial_state(x[0]) if state is None else state
        spikes = []
        for current in x.unbind(0):
            c = 0.5 * c + current
            v = v * (1.0 - s) + 0.021 * s
            u = u + 0.132 * s
            dv, du = v * v - v - u + c, 0.529 * u - 0.172 * v
            v, u = v + dv, u + du
            s = self.surrogate(v - self.v_threshold)
            spikes.append(s)
        return torch.stack(spikes).to(x.dtype), (c, v, u, s) if keep_state else None


def _lif() -> Neuron:
    return LIF(tau=LEAK, decay_input=False, v_threshold=THRESHOLD, surrogate=Rect())


def _plif() -> Neuron:
    return PLIF(init_tau=LEAK, decay_input=False, v_threshold=THRESHOLD, surrogate=Rect())


NEURONS: dict[str, Callable[[], Neuron]] = {
    "lif": _lif,
    "clif": CurrentLIF,
    "dn": DynamicNeuron,
    "plif": _plif,
}
