"""IF, LIF and PLIF fused over time in Triton, for CUDA devices.

The algorithm is that of the CPU kernels with registers in the place of caches: one program owns a block
of neurons and walks through time. Forward writes spikes only. Backward runs forward again into a scratch
area of global memory (one float32 potential a step, freed at once) and walks back over it; so nothing is
kept between the passes but the input. KLIF, CLIF and GLIF run through `spiking.reference.neurons` on CUDA.

``TRITON_INTERPRET=1`` runs the same source on a CPU, which is how it is tested; no number was measured
on a GPU yet.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from spiking import surrogate
from spiking.kernels.layout import in_order_of, like, prepare, same_order
from spiking.kernels.rules.neurons import Leaky

if TYPE_CHECKING:
    from collections.abc import Mapping


BLOCK = 256  # neurons of one program

# Surrogates with a Triton formula, as constants that the compiler specialises on.
SURROGATES: dict[type[surrogate.Surrogate], int] = {
    surrogate.Sigmoid: 0,
    surrogate.ATan: 1,
    surrogate.Rect: 2,
    surrogate.PiecewiseQuadratic: 3,
    surrogate.Erf: 4,
    surrogate.SoftSign: 5,
    surrogate.PiecewiseExp: 6,
    surrogate.SuperSpike: 7,
}


@triton.jit
def _charge(v, x, tau, rate, v_reset, LEAK: tl.constexpr, DECAY: tl.constexpr, HARD: tl.constexpr):
    above = v
    if HARD:
        above = v - v_reset
    drive = x
    if LEAK == 0:
        h = v + x
    else:
        if DECAY:
            drive = x - above
        else:
            drive = above
        if LEAK == 1:
            scaled = tl.div_rn(drive, tau)
        else:
            scaled = drive * rate
        if DECAY:
            h = v + scaled
        else:
            h = (v - scaled) + x
    return h, drive


@triton.jit
def _slope(u, alpha, KIND: tl.constexpr):
    a = tl.abs(u)
    if KIND == 0:
        z = tl.exp(-alpha * a)
        out = alpha * z / ((1.0 + z) * (1.0 + z))
    elif KIND == 1:
        k = 1.5707963267948966 * alpha * u
        out = 0.5 * alpha / (1.0 + k * k)
    elif KIND == 2:
        out = tl.where(a < 0.5 / alpha, alpha, 0.0)
    elif KIND == 3:
        out = tl.where(a <= 1.0 / alpha, alpha - alpha * alpha * a, 0.0)
    elif KIND == 4:
        out = alpha * 0.5641895835477563 * tl.exp(-(alpha * u) * (alpha * u))
    elif KIND == 5:
        one = 1.0 + alpha * a
        out = 0.5 * alpha / (one * one)
    elif KIND == 6:
        out = 0.5 * alpha * tl.exp(-alpha * a)
    else:
        out = alpha / ((1.0 + a) * (1.0 + a))
    return out


@triton.jit
def _forward_kernel(
    x_ptr, out_ptr, start_ptr, end_ptr, rate_ptr,
    count, steps, x_step, theta, v_reset, tau, rate,
    LEAK: tl.constexpr, DECAY: tl.constexpr, HARD: tl.constexpr, LEARN: tl.constexpr,
    STARTS: tl.constexpr, ENDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = i < count
    if LEARN:
        rate = tl.load(rate_ptr)
    v = tl.zeros((BLOCK,), tl.float32)
    if HARD:
        v = v + v_reset
    if STARTS:
        v = tl.load(start_ptr + i, mask=here, other=0.0)
    at, x_at = i, i  # carried along in 64 bits: T times the neurons may not fit into 32
    for _ in range(steps):
        x = tl.load(x_ptr + x_at, mask=here, other=0.0).to(tl.float32)
        h, _drive = _charge(v, x, tau, rate, v_reset, LEAK, DECAY, HARD)
        fires = h >= theta
        if HARD:
            v = tl.where(fires, v_reset, h)
        else:
            v = tl.where(fires, h - theta, h)
        spikes = tl.where(fires, 1.0, 0.0)
        tl.store(out_ptr + at, spikes.to(out_ptr.dtype.element_ty), mask=here)
        at += count
        x_at += x_step
    if ENDS:
        tl.store(end_ptr + i, v, mask=here)


@triton.jit
def _backward_kernel(
    x_ptr, g_ptr, gx_ptr, start_ptr, g_end_ptr, g_start_ptr, h_ptr, rate_ptr, sums_ptr,
    count, steps, x_step, g_step, theta, v_reset, tau, rate, alpha,
    LEAK: tl.constexpr, DECAY: tl.constexpr, HARD: tl.constexpr, DETACH: tl.constexpr,
    LEARN: tl.constexpr, STARTS: tl.constexpr, ENDS: tl.constexpr, KIND: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = i < count
    if LEARN:
        rate = tl.load(rate_ptr)
    start = tl.zeros((BLOCK,), tl.float32)
    if HARD:
        start = start + v_reset
    if STARTS:
        start = tl.load(start_ptr + i, mask=here, other=0.0)
    v = start
    at, x_at, g_at = i, i, i
    for _ in range(steps):
        x = tl.load(x_ptr + x_at, mask=here, other=0.0).to(tl.float32)
        h, _drive = _charge(v, x, tau, rate, v_reset, LEAK, DECAY, HARD)
        tl.store(h_ptr + at, h, mask=here)
        fires = h >= theta
        if HARD:
            v = tl.where(fires, v_reset, h)
        else:
            v = tl.where(fires, h - theta, h)
        at += count
        x_at += x_step
        g_at += g_step
    e = tl.zeros((BLOCK,), tl.float32)
    if ENDS:
        e = tl.load(g_end_ptr + i, mask=here, other=0.0)
    total = tl.zeros((BLOCK,), tl.float32)
    for _ in range(steps):
        at -= count
        x_at -= x_step
        g_at -= g_step
        h = tl.load(h_ptr + at, mask=here, other=0.0)
        g = tl.load(g_ptr + g_at, mask=here, other=0.0).to(tl.float32)
        fires = h >= theta
        if not DETACH:
            if HARD:
                g = g + (v_reset - h) * e
            else:
                g = g - theta * e
        through = e
        if HARD:
            through = tl.where(fires, 0.0, e)
        d = g * _slope(h - theta, alpha, KIND) + through
        gx = d
        e = d
        if LEAK != 0:
            leaked = d * rate
            e = d - leaked
            if DECAY:
                gx = leaked
        if LEARN:
            late = at >= count  # else this is the first step
            before = tl.load(h_ptr + at - count, mask=here & late, other=0.0)
            if HARD:
                v = tl.where(before >= theta, v_reset, before)
            else:
                v = tl.where(before >= theta, before - theta, before)
            v = tl.where(late, v, start)
            x = tl.load(x_ptr + x_at, mask=here, other=0.0).to(tl.float32)
            _h, drive = _charge(v, x, tau, rate, v_reset, LEAK, DECAY, HARD)
            if DECAY:
                total += tl.where(here, d * drive, 0.0)
            else:
                total -= tl.where(here, d * drive, 0.0)
        tl.store(gx_ptr + at, gx.to(gx_ptr.dtype.element_ty), mask=here)
    if STARTS:
        tl.store(g_start_ptr + i, e, mask=here)
    if LEARN:
        tl.store(sums_ptr + tl.program_id(0), tl.sum(total, 0))


def interpreted() -> bool:
    """Whether Triton runs its kernels in Python, on any device."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _leak(rule: Leaky) -> int:
    return {"none": 0, "divide": 1, "multiply": 2}[rule.leak]


def forward(
    rule: Leaky, params: Mapping[str, float], x: Tensor, v: Tensor | None, rate: Tensor | None, keep: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Spikes ``[T, ...]`` and, if ``keep``, the last potential; see `spiking.kernels.cpu.passes`."""
    x = prepare(x, outer=False)
    out = like(x, steps=True, dtype=x.dtype)
    ends: tuple[Tensor, ...] = (like(x, steps=False, dtype=torch.float32),) if keep else ()
    count = out[0].numel() if len(out) else 0
    if count == 0:
        return out, ends
    start = None if v is None else in_order_of(x, v)
    with torch.cuda.device_of(x):  # Triton launches on the current device
        _forward_kernel[(triton.cdiv(count, BLOCK),)](
            x, out, start if start is not None else x, ends[0] if keep else out,
            rate if rate is not None else x,
            count, len(x), x.stride(0), params["theta"], params["v_reset"], params["tau"], params["rate"],
            LEAK=_leak(rule), DECAY=rule.decay_input, HARD=rule.hard, LEARN=rate is not None,
            STARTS=start is not None, ENDS=keep, BLOCK=BLOCK, **_options(),
        )  # fmt: skip
    return out, ends


def _options() -> dict[str, Any]:
    """No fused multiply-add: spikes must have the bits of single operations."""
    return {} if interpreted() else {"enable_fp_fusion": False}


def arriving(x: Tensor, g: Tensor | None) -> Tensor:
    """The gradient of the spikes ``[T, ...]`` in dtype and memory order of ``x``; None is zero."""
    if g is None:
        g = x.new_zeros(()).expand(x.shape)
    if g.dtype != x.dtype or not same_order(x.shape[1:], g.stride()[1:], x.stride()[1:]):
        g = like(x, steps=True, dtype=x.dtype).copy_(g)
    return g


def backward(
    rule: Leaky,
    params: Mapping[str, float],
    x: Tensor,
    v: Tensor | None,
    rate: Tensor | None,
    g: Tensor | None,
    g_end: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of the currents, and of the starting potential and the rate if these are given."""
    x = prepare(x, outer=False)
    gx = like(x, steps=True, dtype=x.dtype)
    g_start = None if v is None else like(x, steps=False, dtype=torch.float32)
    count = gx[0].numel() if len(gx) else 0
    programs = triton.cdiv(count, BLOCK)
    sums = torch.zeros(programs, device=x.device)
    if count:
        g = arriving(x, g)
        start = None if v is None else in_order_of(x, v)
        end = None if g_end is None else in_order_of(x, g_end)
        potentials = torch.empty(len(x), count, device=x.device)
        alpha = float(rule.surrogate.parameters()["alpha"])
        assert math.isfinite(alpha)
        with torch.cuda.device_of(x):
            _backward_kernel[(programs,)](
                x, g, gx, start if start is not None else x, end if end is not None else x,
                g_start if g_start is not None else gx, potentials, rate if rate is not None else x, sums,
                count, len(x), x.stride(0), g.stride(0),
                params["theta"], params["v_reset"], params["tau"], params["rate"], alpha,
                LEAK=_leak(rule), DECAY=rule.decay_input, HARD=rule.hard, DETACH=rule.detach,
                LEARN=rate is not None, STARTS=start is not None, ENDS=end is not None,
                KIND=SURROGATES[type(rule.surrogate)], BLOCK=BLOCK, **_options(),
            )  # fmt: skip
    return gx, g_start, sums.sum(dtype=torch.float64) if rate is not None else None
