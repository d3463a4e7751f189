"""The second-order neuron fused over time in Triton, for CUDA devices; see `spiking.kernels.triton.leaky`.

Backward keeps the potential of each step alone: the recovery is linear in what it was, so its gradient
needs no values.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from spiking.kernels.layout import in_order_of, like, prepare
from spiking.kernels.triton.leaky import BLOCK, SURROGATES, _options, _slope, arriving

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spiking.kernels.rules.neurons import Dynamic


@triton.jit
def _advance(v, u, x, theta, v_reset, jump, pull, growth):
    h = v + (v * v - v - u + x)
    lifted = u + (growth * u - pull * v)
    fires = h >= theta
    return h, tl.where(fires, v_reset, h), tl.where(fires, lifted + jump, lifted)


@triton.jit
def _forward_kernel(
    x_ptr, out_ptr, v_ptr, u_ptr, v_end_ptr, u_end_ptr,
    count, steps, x_step, theta, v_reset, jump, pull, growth,
    STARTS: tl.constexpr, ENDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = i < count
    v = tl.zeros((BLOCK,), tl.float32)
    u = tl.zeros((BLOCK,), tl.float32)
    if STARTS:
        v = tl.load(v_ptr + i, mask=here, other=0.0)
        u = tl.load(u_ptr + i, mask=here, other=0.0)
    at, x_at = i, i
    for _ in range(steps):
        x = tl.load(x_ptr + x_at, mask=here, other=0.0).to(tl.float32)
        h, v, u = _advance(v, u, x, theta, v_reset, jump, pull, growth)
        spikes = tl.where(h >= theta, 1.0, 0.0)
        tl.store(out_ptr + at, spikes.to(out_ptr.dtype.element_ty), mask=here)
        at += count
        x_at += x_step
    if ENDS:
        tl.store(v_end_ptr + i, v, mask=here)
        tl.store(u_end_ptr + i, u, mask=here)


@triton.jit
def _backward_kernel(
    x_ptr, g_ptr, gx_ptr, v_ptr, u_ptr, gv_end_ptr, gu_end_ptr, gv_ptr, gu_ptr, h_ptr,
    count, steps, x_step, g_step, theta, v_reset, jump, pull, growth, alpha,
    STARTS: tl.constexpr, ENDS: tl.constexpr, KIND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = i < count
    start = tl.zeros((BLOCK,), tl.float32)
    u = tl.zeros((BLOCK,), tl.float32)
    if STARTS:
        start = tl.load(v_ptr + i, mask=here, other=0.0)
        u = tl.load(u_ptr + i, mask=here, other=0.0)
    v = start
    at, x_at, g_at = i, i, i
    for _ in range(steps):
        x = tl.load(x_ptr + x_at, mask=here, other=0.0).to(tl.float32)
        h, v, u = _advance(v, u, x, theta, v_reset, jump, pull, growth)
        tl.store(h_ptr + at, h, mask=here)
        at += count
        x_at += x_step
        g_at += g_step
    ev = tl.zeros((BLOCK,), tl.float32)
    eu = tl.zeros((BLOCK,), tl.float32)
    if ENDS:
        ev = tl.load(gv_end_ptr + i, mask=here, other=0.0)
        eu = tl.load(gu_end_ptr + i, mask=here, other=0.0)
    for _ in range(steps):
        at -= count
        g_at -= g_step
        h = tl.load(h_ptr + at, mask=here, other=0.0)
        g = tl.load(g_ptr + g_at, mask=here, other=0.0).to(tl.float32)
        late = at >= count  # else this is the first step
        before = tl.load(h_ptr + at - count, mask=here & late, other=0.0)
        v = tl.where(late, tl.where(before >= theta, v_reset, before), start)
        gs = g + (v_reset - h) * ev + jump * eu
        d = gs * _slope(h - theta, alpha, KIND) + tl.where(h >= theta, 0.0, ev)
        ev = d * (v + v) - pull * eu
        eu = eu + growth * eu - d
        tl.store(gx_ptr + at, d.to(gx_ptr.dtype.element_ty), mask=here)
    if STARTS:
        tl.store(gv_ptr + i, ev, mask=here)
        tl.store(gu_ptr + i, eu, mask=here)


def forward(
    params: Mapping[str, float], x: Tensor, v: Tensor | None, u: Tensor | None, keep: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Spikes ``[T, ...]`` and, if ``keep``, the last states; see `spiking.kernels.cpu.passes`."""
    x = prepare(x, outer=False)
    out = like(x, steps=True, dtype=x.dtype)
    ends = tuple(like(x, steps=False, dtype=torch.float32) for _ in range(2 if keep else 0))
    count = out[0].numel() if len(out) else 0
    if count == 0:
        return out, ends
    starts = _pair(x, v, u)
    with torch.cuda.device_of(x):  # Triton launches on the current device
        _forward_kernel[(triton.cdiv(count, BLOCK),)](
            x, out, *(starts or (x, x)), *(ends or (out, out)),
            count, len(x), x.stride(0), *_constants(params),
            STARTS=starts is not None, ENDS=keep, BLOCK=BLOCK, **_options(),
        )  # fmt: skip
    return out, ends


def backward(
    rule: Dynamic,
    params: Mapping[str, float],
    x: Tensor,
    v: Tensor | None,
    u: Tensor | None,
    g: Tensor | None,
    g_ends: tuple[Tensor | None, ...],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of the currents, and of those starting states that are given."""
    x = prepare(x, outer=False)
    gx = like(x, steps=True, dtype=x.dtype)
    gv_end, gu_end = g_ends or (None, None)
    starts, ends = _pair(x, v, u), _pair(x, gv_end, gu_end)
    found = None if starts is None else tuple(like(x, steps=False, dtype=torch.float32) for _ in starts)
    count = gx[0].numel() if len(gx) else 0
    if count:
        g = arriving(x, g)
        potentials = torch.empty(len(x), count, device=x.device)
        alpha = float(rule.surrogate.parameters()["alpha"])
        assert math.isfinite(alpha)
        with torch.cuda.device_of(x):
            _backward_kernel[(triton.cdiv(count, BLOCK),)](
                x, g, gx, *(starts or (x, x)), *(ends or (x, x)), *(found or (gx, gx)), potentials,
                count, len(x), x.stride(0), g.stride(0), *_constants(params), alpha,
                STARTS=starts is not None, ENDS=ends is not None,
                KIND=SURROGATES[type(rule.surrogate)], BLOCK=BLOCK, **_options(),
            )  # fmt: skip
    gv, gu = found or (None, None)
    return gx, None if v is None else gv, None if u is None else gu


def _constants(params: Mapping[str, float]) -> list[float]:
    return [params[name] for name in ("theta", "v_reset", "jump", "pull", "growth")]


def _pair(x: Tensor, first: Tensor | None, second: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """Both states in the memory order of ``x``, 0 in the place of a missing one; None without any."""
    if first is None and second is None:
        return None
    a, b = (
        torch.zeros_like(like(x, steps=False, dtype=torch.float32)) if t is None else in_order_of(x, t)
        for t in (first, second)
    )
    return a, b
