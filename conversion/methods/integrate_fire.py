"""The integrate-and-fire neuron that QCFS, SRP and COS share (arXiv 2303.04347, 2302.02091, 2302.10685).

Currents, membranes and spikes are in units of the threshold: ``x(t) = I(t) / theta``, and a spike is
the output ``theta``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from conversion.network.site import RECT
from spiking import functional

if TYPE_CHECKING:
    from torch import Tensor

    from spiking.surrogate import Surrogate

V_INIT = 0.5  # half a threshold, the shift that makes the expected error zero (QCFS, theorem 2)


def integrate_fire(
    x: Tensor, v0: float | Tensor = V_INIT, *, surrogate: Surrogate = RECT, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Charge ``u(t) = v(t-1) + x(t)``, fire ``s(t) = [u(t) >= 1]``, reset ``v(t) = u(t) - s(t)``.

    There is no leak and no lower bound. With n spikes and S the sum of the currents over T steps,
    ``v(T) = v0 + S - n``; constant currents give ``n = clip(floor(S + 1/2), 0, T)``, other currents do so
    exactly where the membrane ends in [0, 1), apart from the clipping. A current that is expanded over
    T, like that of a still image, is read in place.

    >>> integrate_fire(torch.tensor([0.5, 0.0, 0.75, 0.75]))
    (tensor([1., 0., 0., 1.]), tensor(0.5000))

    Args:
        x: currents ``[T, ...]``, float.
        v0: membrane before the first step, a number or broadcastable to ``[...]``.
        surrogate: slope of the step in the backward pass, which also runs through the reset.
        backend: see `spiking.functional.neurons`.

    Returns:
        Spikes ``[T, ...]`` in the dtype of ``x``, and the membrane ``[...]`` after the last step, float32
        (float64 for float64 currents).
    """
    functional.check(x)
    dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
    start = torch.as_tensor(v0, dtype=dtype, device=x.device).expand(x.shape[1:])
    spikes, v = functional.if_(x, start, v_reset=None, surrogate=surrogate, backend=backend)
    assert v is not None  # states are kept by default
    return spikes, v
