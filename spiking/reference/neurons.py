"""Spiking neurons step by step, straight from the equations: the oracle for every fast kernel.

All functions take currents ``x [T, ...]`` and give spikes ``[T, ...]`` in the dtype of ``x`` and the state
after the last step. Letters as in the literature: ``h`` potential before the reset, ``v`` after it, ``s``
spikes, T time steps. Charge, fire where ``h >= v_threshold``, reset: "hard" to ``v_reset``, or, with
``v_reset=None``, "soft" by subtracting the threshold. The state lives in float32 (float64 for float64
currents). STBP 1706.02609; every function names its own source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

from spiking.reference.firing import SIGMOID, TRIANGLE, Firing, FiringOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from spiking.surrogate import Surrogate


def state_dtype(x: Tensor) -> torch.dtype:
    """Dtype of membrane potentials for currents ``x``: float32, or float64 for float64."""
    return torch.float64 if x.dtype is torch.float64 else torch.float32


def _start(x: Tensor, v: Tensor | None, value: float) -> Tensor:
    dtype = state_dtype(x)
    return torch.full_like(x[0], value, dtype=dtype) if v is None else v.to(dtype)


def _reset(h: Tensor, s: Tensor, theta: float | Tensor, firing: Firing) -> Tensor:
    if firing.detach_reset:
        s = s.detach()
    if firing.v_reset is None:
        return h - theta * s
    return (1.0 - s) * h + s * firing.v_reset


def _run(
    x: Tensor, v: Tensor | None, charge: Callable[[Tensor, Tensor], Tensor], firing: Firing
) -> tuple[Tensor, Tensor]:
    v = _start(x, v, firing.rest)
    spikes = []
    for x_t in x.to(v.dtype).unbind(0):
        h = charge(v, x_t)
        s = firing.surrogate(h - firing.v_threshold)
        v = _reset(h, s, firing.v_threshold, firing)
        spikes.append(s)
    return torch.stack(spikes).to(x.dtype), v


def if_(x: Tensor, v: Tensor | None = None, **firing: Unpack[FiringOptions]) -> tuple[Tensor, Tensor]:
    """Integrate-and-fire: ``h(t) = v(t-1) + x(t)``.

    Args:
        x: currents ``[T, ...]``.
        v: potential before the first step ``[...]``; rest if missing.
        firing: threshold, reset and surrogate, see `Firing`.
    """
    return _run(x, v, lambda v, x: v + x, Firing(**firing))


def _leak(
    scaled: Callable[[Tensor], Tensor], decay_input: bool, v_reset: float | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Charge of a leaky neuron; ``scaled(a)`` is ``a / tau``."""

    def charge(v: Tensor, x: Tensor) -> Tensor:
        above = v if v_reset is None else v - v_reset
        return v + scaled(x - above) if decay_input else v - scaled(above) + x

    return charge


def lif(
    x: Tensor,
    v: Tensor | None = None,
    *,
    tau: float = 2.0,
    decay_input: bool = True,
    **firing: Unpack[FiringOptions],
) -> tuple[Tensor, Tensor]:
    """Leaky integrate-and-fire.

    ``h(t) = v + (x - (v - r)) / tau`` with ``decay_input``, else ``v - (v - r) / tau + x``; ``r`` is
    ``v_reset``, or 0 for a soft reset.

    Args:
        x: see `if_`.
        v: see `if_`.
        tau: time constant in steps.
        decay_input: whether the current is divided by ``tau``, too.
        firing: see `if_`.
    """
    fire = Firing(**firing)
    return _run(x, v, _leak(lambda a: a / tau, decay_input, fire.v_reset), fire)


def plif(
    x: Tensor,
    w: Tensor,
    v: Tensor | None = None,
    *,
    decay_input: bool = True,
    **firing: Unpack[FiringOptions],
) -> tuple[Tensor, Tensor]:
    """LIF with learnable ``1 / tau = sigmoid(w)``, ``w []`` (2007.05785); arguments as in `lif`."""
    fire = Firing(**firing)
    rate = w.to(state_dtype(x)).sigmoid()
    return _run(x, v, _leak(lambda a: a * rate, decay_input, fire.v_reset), fire)


def klif(
    x: Tensor,
    k: Tensor,
    v: Tensor | None = None,
    *,
    scale_reset: bool = False,
    tau: float = 2.0,
    decay_input: bool = True,
    **firing: Unpack[FiringOptions],
) -> tuple[Tensor, Tensor]:
    """LIF with ``h = relu(k * charge)``, ``k []`` learnable (2302.09238); arguments as in `lif`.

    With ``scale_reset`` the reset acts on ``h / k`` with the threshold ``v_threshold / k``.
    """
    fire = Firing(**firing)
    charge = _leak(lambda a: a / tau, decay_input, fire.v_reset)
    v = _start(x, v, fire.rest)
    k = k.to(v.dtype)
    spikes = []
    for x_t in x.to(v.dtype).unbind(0):
        h = torch.relu(k * charge(v, x_t))
        s = fire.surrogate(h - fire.v_threshold)
        base, theta = (h / k, fire.v_threshold / k) if scale_reset else (h, fire.v_threshold)
        v = _reset(base, s, theta, fire)
        spikes.append(s)
    return torch.stack(spikes).to(x.dtype), v


def clif(
    x: Tensor,
    v: Tensor | None = None,
    m: Tensor | None = None,
    *,
    tau: float = 2.0,
    v_threshold: float = 1.0,
    surrogate: Surrogate = SIGMOID,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Complementary LIF (2402.04663): a second potential ``m`` deepens the soft reset.

    ``h = (1 - 1/tau) v + x``; ``m = m sig(h / tau) + s``; ``v = h - s (v_threshold + sig(m))``.
    """
    v, m = _start(x, v, 0.0), _start(x, m, 0.0)
    spikes = []
    for x_t in x.to(v.dtype).unbind(0):
        h = v * (1.0 - 1.0 / tau) + x_t
        m = m * torch.sigmoid(h / tau)
        s = surrogate(h - v_threshold)
        m = m + s
        v = h - s * (v_threshold + torch.sigmoid(m))
        spikes.append(s)
    return torch.stack(spikes).to(x.dtype), (v, m)


def glif(
    x: Tensor,
    coefficients: Tensor,
    conductance: Tensor,
    v: Tensor | None = None,
    s: Tensor | None = None,
    *,
    surrogate: Surrogate = SIGMOID,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Gated LIF (2210.13768) over its linear coefficients.

    ``h = keep v - decay + conductance(t) x - keep gamma v s - reset s``, fires at ``theta``. The reset of
    a spike happens one step later, so ``v`` is the potential before it.

    Args:
        x: currents ``[T, B, C, ...]``.
        coefficients: ``[5, C or 1]``: keep, decay, gamma, reset, theta.
        conductance: ``[T, C or 1]``.
        v: potential ``[B, C, ...]``, 0 if missing.
        s: spikes of the step before ``[B, C, ...]``, 0 if missing.
        surrogate: slope of the step.
    """
    v, s = _start(x, v, 0.0), _start(x, s, 0.0)
    shape = (-1, *(1,) * (x.dim() - 3))
    keep, decay, gamma, reset, theta = (c.reshape(shape) for c in coefficients.to(v.dtype))
    spikes = []
    for x_t, conduct in zip(x.to(v.dtype).unbind(0), conductance.to(v.dtype).unbind(0), strict=True):
        kept = keep * v
        v = kept - decay + x_t * conduct.reshape(shape) - kept * gamma * s - reset * s
        s = surrogate(v - theta)
        spikes.append(s)
    return torch.stack(spikes).to(x.dtype), (v, s)


def lmh(
    x: Tensor,
    coefficients: Tensor,
    d: Tensor | None = None,
    u: Tensor | None = None,
    *,
    surrogate: Surrogate = TRIANGLE,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """LM-H (ICLR 2024, code hzc1208/STBP_LMH): a dendrite ``d`` feeds a soma ``u``.

    ``d = a d + b u + x``; ``u = c u + e d``; ``y = theta H(u - theta)``; ``u = u - y``, the reset detached.
    The slope of ``y`` is ``theta`` times the surrogate.

    Args:
        x: currents ``[T, ...]``.
        coefficients: ``[5]``: a, b, c, e, theta; theta is not learnt.
        d: dendritic potential, 0 if missing.
        u: somatic potential, ``theta / 2`` if missing.
        surrogate: slope of the step.

    Returns:
        ``y``: 0 or theta, and the last ``(d, u)``.
    """
    a, b, c, e, theta = coefficients.to(state_dtype(x)).unbind()
    theta = theta.detach()
    d = _start(x, d, 0.0)
    u = theta * 0.5 + torch.zeros_like(d) if u is None else u.to(d.dtype)
    out = []
    for x_t in x.to(d.dtype).unbind(0):
        d = a * d + b * u + x_t
        u = c * u + e * d
        y = theta * surrogate(u - theta)
        u = u - y.detach()
        out.append(y)
    return torch.stack(out).to(x.dtype), (d, u)


class _Levels(torch.autograd.Function):
    """``theta clip(floor(m / theta), 0, L)``; slope 1 for ``theta / 2 <= m <= (L + 1/2) theta``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(m: Tensor, theta: Tensor, levels: int) -> Tensor:
        return count_levels(m, theta, levels)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        m, theta, ctx.levels = inputs
        ctx.save_for_backward(m, theta)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        m, theta = ctx.saved_tensors
        inside = (m >= theta * 0.5) & (m <= theta * (ctx.levels + 0.5))
        return torch.where(inside, grads[0], torch.zeros_like(m)), None, None


def count_levels(m: Tensor, theta: Tensor, levels: int) -> Tensor:
    """How many of theta, 2 theta ... L theta the potential has reached, times theta."""
    reached = torch.zeros_like(m)
    for k in range(1, levels + 1):  # a division would round where the potential equals a threshold
        reached = reached + (m >= theta * k).to(m.dtype)
    return theta * reached


def lmht(
    x: Tensor, weight: Tensor, leak: Tensor, theta: Tensor, v_init: Tensor, *, levels: int
) -> tuple[Tensor, Tensor]:
    """LM-HT (2402.00411): currents mixed over all steps, and up to L thresholds crossed at once.

    ``m(t) = leak[t] stop(v(t-1)) + sum_j weight[t, j] x(j)``; ``y(t) = theta clip(floor(m / theta), 0, L)``;
    ``v(t) = m(t) - y(t)``. The slope of ``y`` is 1 where ``theta / 2 <= m <= (L + 1/2) theta``; nothing
    flows through ``v`` or ``theta``. Not causal.

    Args:
        x: currents ``[T', ...]``.
        weight: ``[T, T']``, the temporal-global information matrix.
        leak: ``[T]``, what of the potential is left at each step.
        theta: threshold ``[]``.
        v_init: potential before the first step, in thresholds, ``[]``.
        levels: L.

    Returns:
        ``y [T, ...]``, multiples of theta, and the last potential.
    """
    dtype = state_dtype(x)
    weight, leak, theta = weight.to(dtype), leak.to(dtype), theta.to(dtype).detach()
    start = theta * v_init.to(dtype).detach()
    steps = x.to(dtype).unbind(0)
    v = start + torch.zeros_like(steps[0])
    out = []
    for row, left in zip(weight.unbind(0), leak.unbind(0), strict=True):
        current = row[0] * steps[0]
        for w, x_j in zip(row.unbind(0)[1:], steps[1:], strict=True):
            current = current + w * x_j
        m = left * v.detach() + current
        if torch.compiler.is_exporting():  # a graph for inference needs no slope
            y = count_levels(m, theta, levels)
        else:
            y = _Levels.apply(m, theta, levels)
        v = m - y
        out.append(y)
    return torch.stack(out).to(x.dtype), v
