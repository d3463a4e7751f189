"""The second-order neuron step by step: the oracle of its kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spiking.reference.neurons import state_dtype

if TYPE_CHECKING:
    from spiking.surrogate import Surrogate


@dataclass(frozen=True, kw_only=True)
class Dynamics:
    """Constants of a second-order neuron; the defaults are those of the code of 2505.24161.

    Attributes:
        v_reset: potential after a spike.
        jump: what a spike adds to the recovery.
        pull: how much of the potential the recovery loses at a step.
        growth: how much of itself the recovery gains at a step.
    """

    v_reset: float = 0.021
    jump: float = 0.132
    pull: float = 0.172
    growth: float = 0.529


def dynamic(
    x: Tensor,
    v: Tensor | None = None,
    u: Tensor | None = None,
    *,
    dynamics: Dynamics,
    v_threshold: float,
    surrogate: Surrogate,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Dynamic neuron of MDC-SAN (2106.07854): ``dv = v^2 - v - u + x``, ``du = growth u - pull v``.

    Both from the values before; fires where ``v >= v_threshold``, then ``v = v_reset`` and ``u = u + jump``.
    The reset is not detached.

    Args:
        x: currents ``[T, ...]``.
        v: potential ``[...]`` before the first step; 0 if missing.
        u: recovery likewise.
        dynamics: constants.
        v_threshold: fires at this potential and above.
        surrogate: slope of the step.
    """
    dtype = state_dtype(x)
    v = torch.zeros_like(x[0], dtype=dtype) if v is None else v.to(dtype)
    u = torch.zeros_like(x[0], dtype=dtype) if u is None else u.to(dtype)
    spikes = []
    for x_t in x.to(dtype).unbind(0):
        dv, du = v * v - v - u + x_t, dynamics.growth * u - dynamics.pull * v
        v, u = v + dv, u + du
        s = surrogate(v - v_threshold)
        v, u = (1.0 - s) * v + s * dynamics.v_reset, u + dynamics.jump * s
        spikes.append(s)
    return torch.stack(spikes).to(x.dtype), (v, u)
