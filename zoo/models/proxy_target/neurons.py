"""The neurons of spiking actors: LIF, current-based LIF, dynamic neurons, LIF with a learnt leak.

All fire where the potential is above 0.5, and not at it; the slope is 1 within 0.5 of the threshold, and the
gradient takes the reset's way, too (code of 2505.24161).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from spiking import IF, LIF, PLIF, Neuron, functional
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

    state_names: ClassVar[tuple[str, ...]] = ("current", "v")

    def __init__(self) -> None:
        super().__init__(tau=LEAK, decay_input=False, v_threshold=THRESHOLD, surrogate=Rect())

    def initial_state(self, x: Tensor) -> Any:
        """Current and potential at 0."""
        zero = torch.zeros_like(x, dtype=state_dtype(x))
        return zero, zero.clone()

    def run(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """See `Neuron.run`; the state is ``(c, v)``."""
        c, v = state or (None, None)
        current = halving(x, c)
        spikes, v = super().run(current, v, keep_state)
        return spikes, (current[-1], v) if keep_state else None


class DynamicNeuron(Neuron):
    """The second-order neuron of MDC-SAN (2106.07854) behind a current that halves at every step.

    ``c <- c / 2 + x``; for the rest see `spiking.reference.dynamic`, with the constants of 2505.24161.
    """

    state_names: ClassVar[tuple[str, ...]] = ("current", "v", "u")

    def __init__(self) -> None:
        super().__init__(THRESHOLD, Rect())

    def initial_state(self, x: Tensor) -> Any:
        """Current, potential and recovery at 0."""
        zero = torch.zeros_like(x, dtype=state_dtype(x))
        return zero, zero.clone(), zero.clone()

    def run(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """See `Neuron.run`; the state is ``(c, v, u)``."""
        c, v, u = state or (None, None, None)
        current = halving(x, c)
        spikes, ends = functional.dynamic(
            current,
            v,
            u,
            v_threshold=self.v_threshold,
            surrogate=self.surrogate,
            backend=self.backend,
            keep_state=keep_state,
        )
        return spikes, (current[-1], *ends) if ends is not None else None


def halving(x: Tensor, before: Tensor | None) -> Tensor:
    """``c_t = c_(t-1) / 2 + x_t`` for all steps ``[T, B, ...]`` at once; ``before [B, ...]`` is ``c_0``."""
    T = len(x)
    past = torch.arange(T, device=x.device)
    weights = torch.where(past <= past[:, None], 0.5 ** (past[:, None] - past).clamp(min=0), 0.0)
    current = (weights.to(x.dtype) @ x.reshape(T, -1)).reshape(x.shape)
    if before is None:
        return current
    left = 0.5 ** (past + 1.0)
    return current + left.to(x.dtype).view(-1, *[1] * (x.dim() - 1)) * before


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
