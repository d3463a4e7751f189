"""The neuron of Parallel Conversion and its calibration, one site at a time (arXiv 2412.13610).

Where the article's spikes come last in the window, those of the authors' code come first, as here. Counts,
and so everything that depends on them, are the same.

Currents and thresholds are in one unit. Thresholds and corrections broadcast against one step: a number,
``[1]``, or ``[C, 1, 1]``. A channel whose threshold is not positive never fires; the authors do not guard it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from conversion.methods.integrate_fire import integrate_fire
from conversion.network.site import RECT

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from spiking.surrogate import Surrogate

MOMENTUM = 0.99  # of the corrections; no bias correction, so N batches reach 1 - 0.99^N of the way


def parallel_spikes(
    mean: Tensor,
    time_steps: int,
    v_threshold: float | Tensor = 1.0,
    phi_in: Tensor | None = None,
    *,
    surrogate: Surrogate = RECT,
    backend: str = "auto",
) -> Tensor:
    """Spikes of a neuron that receives the charge of all T steps before the first one.

    The authors' step t fires where ``(T / t) mean + (theta / 2 + T phi_in) / t >= theta``, that is where
    ``z = T (mean + phi_in) / theta + 1/2`` is at least t. So ``floor(z)`` spikes come first, as an
    integrate-and-fire neuron without currents sends them from the membrane z. Computed in this order z
    is, to the last bit, what QCFS rounds, so that ties fall as in the source; the authors' quotients may
    round one to the other side.

    Args:
        mean: mean current over the T steps ``[...]``.
        time_steps: T.
        v_threshold: theta.
        phi_in: correction of the mean.
        surrogate: with the default, the straight-through rule of QCFS except within half a level of the
            bounds of its range.
        backend: see `spiking.functional.neurons`.

    Returns:
        Spikes ``[T, ...]`` in the dtype of ``mean``, not increasing over time.

    Raises:
        ValueError: ``time_steps`` is not at least 1.
    """
    z = _levels(mean, v_threshold, time_steps, phi_in)
    nothing = torch.zeros_like(mean).expand(time_steps, *mean.shape)
    return integrate_fire(nothing, z, surrogate=surrogate, backend=backend)[0]


def parallel(
    x: Tensor,
    v_threshold: float | Tensor = 1.0,
    phi_in: Tensor | None = None,
    phi_out: Tensor | None = None,
    *,
    surrogate: Surrogate = RECT,
    backend: str = "auto",
) -> Tensor:
    """A converted site: `parallel_spikes` of the mean, each of which carries ``theta + phi_out``.

    Its mean over time is `da_qcfs` of the mean current.

    Args:
        x: currents ``[T, ...]``.
        v_threshold: theta.
        phi_in: correction of the mean.
        phi_out: correction of the emitted value.
        surrogate: see `parallel_spikes`.
        backend: see `spiking.functional.neurons`.

    Returns:
        Outputs ``[T, ...]``.
    """
    spikes = parallel_spikes(x.mean(0), len(x), v_threshold, phi_in, surrogate=surrogate, backend=backend)
    return spikes * (v_threshold if phi_out is None else v_threshold + phi_out)


@torch.no_grad()
def da_qcfs(
    x: Tensor,
    v_threshold: float | Tensor,
    time_steps: int,
    phi_in: Tensor | None = None,
    phi_out: Tensor | None = None,
) -> Tensor:
    """The calibrated activation: ``clip(floor(T (x + phi_in) / theta + 1/2) / T, 0, 1) (theta + phi_out)``.

    Without corrections, QCFS with T levels.

    Args:
        x: currents ``[...]``.
        v_threshold: theta.
        time_steps: T.
        phi_in: correction of the current.
        phi_out: correction of the value of full activity.

    Returns:
        Activations ``[...]``.
    """
    rate = _levels(x, v_threshold, time_steps, phi_in).floor_().clamp_(0, time_steps).div_(time_steps)
    return rate.mul_(v_threshold if phi_out is None else v_threshold + phi_out).to(x.dtype)


@torch.no_grad()
def clipped_relu(x: Tensor, v_threshold: float | Tensor) -> Tensor:
    """``clip(x, 0, theta)``: what a ReLU source shows while thresholds are its channels' maxima.

    Args:
        x: currents ``[...]``.
        v_threshold: theta; where it is not positive, the activation is 0.

    Returns:
        Activations ``[...]``.
    """
    top = torch.as_tensor(v_threshold, dtype=x.dtype, device=x.device)
    return torch.minimum(x, top).clamp_(min=0)


@torch.no_grad()
def calibrate_step(
    x_low: Tensor,
    x_ref: Tensor,
    v_threshold: float | Tensor,
    time_steps: int,
    phi_in: Tensor,
    phi_out: Tensor,
    reference: Callable[[Tensor], Tensor],
    momentum: float = MOMENTUM,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One batch of calibration at one site.

    Two copies of the batch run through the network: one with `da_qcfs` at every site, one with the source's
    activation. The order is that of the authors' code: ``phi_in`` moves first and counts at once, while
    ``phi_out`` counts from the next batch on. Statistics are means over all axes but the channels', so
    maps ``[B, C, H, W]`` have corrections ``[C, 1, 1]`` and vectors ``[B, C]`` have ``[C]``. The authors
    calibrate maps only and let both copies pass classifier sites as ``da_qcfs(x, v_threshold, T)``.

    Args:
        x_low: currents of the copy with T levels.
        x_ref: currents of the reference copy.
        v_threshold: theta.
        time_steps: T.
        phi_in: moving mean of ``x_ref - x_low``; zeros at first.
        phi_out: moving mean of ``y_ref - y_low``; zeros at first.
        reference: the source's activation, e.g. `clipped_relu` with theta, or `da_qcfs` with theta and
            the L of the source. The authors' L is 8 whatever the source.
        momentum: weight of the past.

    Returns:
        ``y_low``, ``y_ref``, and the new ``phi_in`` and ``phi_out``.

    Raises:
        ValueError: the copies differ in shape.
    """
    if x_low.shape != x_ref.shape:
        raise ValueError(
            f"both copies must have one shape, got {tuple(x_low.shape)} with T levels and"
            f" {tuple(x_ref.shape)} of the reference; halve a doubled batch with chunk(2)"
        )
    phi_in = momentum * phi_in + (1 - momentum) * _per_channel(x_ref - x_low)
    y_low = da_qcfs(x_low, v_threshold, time_steps, phi_in, phi_out)
    y_ref = reference(x_ref)
    phi_out = momentum * phi_out + (1 - momentum) * _per_channel(y_ref - y_low)
    return y_low, y_ref, phi_in, phi_out


def _per_channel(x: Tensor) -> Tensor:
    """Means over all axes but the second: ``[B, C, ...]`` -> ``[C, 1...]``."""
    return x.mean([0, *range(2, x.dim())], keepdim=True)[0]


def _levels(x: Tensor, v_threshold: float | Tensor, time_steps: int, phi_in: Tensor | None) -> Tensor:
    """``T (x + phi_in) / theta + 1/2``, in a tensor of its own; its floor is the number of spikes."""
    if time_steps < 1:
        raise ValueError(f"time_steps must be at least 1, got {time_steps!r}")
    dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
    theta = torch.as_tensor(v_threshold, dtype=dtype, device=x.device)
    theta = torch.where(theta > 0, theta, torch.inf)  # half a level from everywhere: silent
    x = x.to(dtype)
    return (x if phi_in is None else x + phi_in) / theta * time_steps + 0.5
