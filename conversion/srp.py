"""SRP: silence neurons that a rehearsal leaves in debt (arXiv 2302.02091).

Every input is shown twice. During the first ``tau`` steps the network runs as QCFS converted it and its
output is thrown away. A neuron whose membrane then is not above `MARGIN` has fired more often than its
activation wants, or is about to; it stays silent in the second pass, in which every neuron starts afresh.
All layers rehearse at once, so that no mask depends on another.

The article argues for ``v(tau) < 0``; the authors' code (hzc1208/ANN2SNN_SRP) also silences membranes from
0 to 0.001, and so do we. Its neuron counts calls to know its phase; here phases are slices of the time axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from conversion._integrate_fire import RECT, V_INIT, integrate_fire

if TYPE_CHECKING:
    from torch import Tensor

    from spiking.surrogate import Surrogate

MARGIN = 0.001  # in thresholds; neurons with a residual membrane above it may speak
DEBT = 1e30  # in thresholds; no current pays it back


def srp(x: Tensor, tau: int, *, surrogate: Surrogate = RECT, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Rehearse on the first ``tau`` steps, then run masked on the others.

    The authors multiply the output of a neuron that runs on unseen; this gives the same spikes.

    Args:
        x: currents in units of the threshold ``[tau + T, ...]``: the rehearsal, then the run.
        tau: steps of the rehearsal; 0 is plain QCFS.
        surrogate: see `conversion._integrate_fire.integrate_fire`; no gradient runs through the mask.
        backend: see `spiking.functional`.

    Returns:
        Spikes ``[tau + T, ...]``, unmasked up to ``tau``, and the mask ``[...]``, true for neurons that
        may speak.

    Raises:
        ValueError: ``tau`` is negative or leaves no step for the run.
    """
    if not 0 <= tau < len(x):
        raise ValueError(
            f"tau must be between 0 and {len(x) - 1} for {len(x)} time steps, got {tau!r}; the sequence"
            " holds tau steps of rehearsal and then T of the run"
        )
    if tau == 0:
        return integrate_fire(x, surrogate=surrogate, backend=backend)[0], x.new_ones(x.shape[1:]).bool()
    rehearsed, residual = integrate_fire(x[:tau], surrogate=surrogate, backend=backend)
    residual = residual.detach()
    mask = residual > MARGIN
    start = torch.le(residual, MARGIN, out=torch.empty_like(residual)).mul_(-DEBT).add_(V_INIT)
    spikes, _ = integrate_fire(x[tau:], start, surrogate=surrogate, backend=backend)
    return torch.cat([rehearsed, spikes]), mask
