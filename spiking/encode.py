"""From images to sequences: ``[B, ...]`` -> ``[T, B, ...]``.

Axes: T time, B batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spiking.arguments import integer
from spiking.budget import require_memory


def direct(x: Tensor, time_steps: int) -> Tensor:
    """The same input at every step, a view without copies; the first neurons make spikes of it.

    >>> direct(torch.zeros(2, 3, 8, 8), 4).shape
    torch.Size([4, 2, 3, 8, 8])

    Args:
        x: ``[B, ...]``.
        time_steps: T.

    Returns:
        ``[T, B, ...]``, of stride 0 along T: read it, do not write into it.
    """
    _check(x, time_steps)
    return x.expand(time_steps, *x.shape)


def poisson(x: Tensor, time_steps: int, generator: torch.Generator | None = None) -> Tensor:
    """Rate coding: at every step a spike with probability ``x``, independently.

    The limit of a Poisson process that fires at most once a step (a Bernoulli process).

    Args:
        x: intensities in [0, 1], ``[B, ...]``.
        time_steps: T.
        generator: source of randomness, for reproducible spikes; on the device of ``x``.

    Returns:
        Spikes ``[T, B, ...]`` in the dtype of ``x``.

    Raises:
        ValueError: intensities outside [0, 1] or NaN.
    """
    _check(x, time_steps)
    _check_intensity(x, "poisson")
    _check_room(x, time_steps)
    # float32 draws: in half precision a draw rounds up to 1.0 now and then, and low rates are coarse
    wide = x if x.dtype is torch.float64 else x.float()
    draws = torch.rand((time_steps, *x.shape), generator=generator, dtype=wide.dtype, device=x.device)
    return (draws < wide).to(x.dtype)


def latency(x: Tensor, time_steps: int) -> Tensor:
    """Time to first spike: one spike for each value, the earlier the brighter; none for zero.

    Intensity 1 fires at step 0, the faintest at T - 1: ``t = min(floor(T (1 - x)), T - 1)``.

    >>> latency(torch.tensor([[1.0, 0.5, 0.01, 0.0]]), 3).squeeze(1)
    tensor([[1., 0., 0., 0.],
            [0., 1., 0., 0.],
            [0., 0., 1., 0.]])

    Args:
        x: intensities in [0, 1], ``[B, ...]``.
        time_steps: T.

    Returns:
        Spikes ``[T, B, ...]`` in the dtype of ``x``.

    Raises:
        ValueError: intensities outside [0, 1] or NaN.
    """
    _check(x, time_steps)
    _check_intensity(x, "latency")
    _check_room(x, time_steps)
    wide = x if x.dtype is torch.float64 else x.float()
    when = ((1.0 - wide) * time_steps).floor().clamp_max(time_steps - 1)
    when = when.masked_fill(x == 0, time_steps)  # never
    steps = torch.arange(time_steps, device=x.device, dtype=wide.dtype)
    return (steps.view(-1, *(1,) * x.dim()) == when).to(x.dtype)


def _check(x: Tensor, time_steps: int) -> None:
    integer("time_steps", time_steps)
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor [B, ...], got {type(x).__name__}")
    if x.dim() < 1:
        raise ValueError("expected [B, ...], got a tensor without axes")
    if not x.is_floating_point():
        raise TypeError(
            f"expected a floating-point input, got {x.dtype}; scale it first, e.g. x.float() / 255"
        )


def _check_intensity(x: Tensor, label: str) -> None:
    if x.numel() == 0:
        return
    low, high = (float(v) for v in x.aminmax())
    if not (low >= 0.0 and high <= 1.0):  # false for NaN, too
        raise ValueError(
            f"{label} coding needs intensities in [0, 1], got values from {low:g} to {high:g};"
            " scale the data to that range instead of normalising it by mean and deviation"
        )


def _check_room(x: Tensor, time_steps: int) -> None:
    require_memory(
        f"spikes over time_steps = {time_steps}, {tuple(x.shape)} a step,",
        time_steps * x.numel() * x.element_size(),
        x.device,
        "use fewer time_steps or a smaller batch",
    )
