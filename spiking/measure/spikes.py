"""Whether values are spikes: small multiples of a common unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# An input counts as spikes if all its values are multiples of one of these. 1 is plain spikes and sums
# of them (SEW residuals); the others are what average pooling makes of spikes, where the division goes
# into the weights and the additions remain.
UNITS = (1, 2, 4, 8, 16)
MAX_LEVEL = 128  # more additions than this for one value are no spikes any more, but an image


def additions_per_value(
    x: Tensor,
    units: Sequence[int] = UNITS,
    max_level: int = MAX_LEVEL,
    spike_values: Sequence[float] = (1.0,),
) -> Tensor:
    """The factor that turns values of spikes into numbers of additions; 0-d float64, on the device of ``x``.

    It is the smallest of ``units / spike_values`` that makes ``x`` integers of at most ``max_level``, and 0
    where there is none: the values are analog. Never waits for the device.

    Args:
        x: any tensor of numbers.
        units: denominators that are tried.
        max_level: the largest number of additions that one value may stand for.
        spike_values: heights of one spike, as of neurons whose output carries the threshold.
    """
    x = x.detach().abs()
    unit = torch.zeros((), dtype=torch.float64, device=x.device)
    if not x.numel():
        return unit + 1
    if not x.is_floating_point():
        x = x.double()
    largest = x.amax()
    for value in spike_values:
        for candidate in reversed(units):
            factor = candidate / value
            scaled = x * factor
            # multiples of a threshold that is no power of two are rounded, each to the dtype
            near = 0.0 if value == 1.0 else 4 * torch.finfo(x.dtype).eps * largest * factor
            fits = ((scaled - scaled.round()).abs() <= near).all() & (largest * factor <= max_level)
            better = fits & ((unit == 0) | (unit > factor))
            unit = torch.where(better, factor, unit)  # no branch: a GPU would have to be waited for
            if x.device.type == "cpu" and not fits:
                break  # multiples of 1/8 are multiples of 1/16, too
    return unit
