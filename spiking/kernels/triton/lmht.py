"""LM-HT fused over time in Triton, for CUDA devices; the algorithm is that of `cpu.lmht`.

One program owns a block of neurons. The currents of all steps are read once for every step, from the cache
after the first time. Backward runs forward again, keeps the gradients that pass the surrogate in a scratch
area of global memory, and writes its sums for the matrix and the leak, one row a program. The numbers of
the neuron stay on the device. As in `triton`, no number was measured on a GPU yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from spiking.kernels.layout import like, prepare, same_order
from spiking.kernels.triton.runtime import BLOCK, options

if TYPE_CHECKING:
    from spiking.kernels.rules.neurons import LMHT


@triton.jit
def _potential(x_ptr, table_ptr, i, here, x_step, t, v, STEPS: tl.constexpr, STEPS_IN: tl.constexpr):
    row = table_ptr + 2 + STEPS + t * STEPS_IN
    x_at = i
    current = tl.load(row) * tl.load(x_ptr + x_at, mask=here, other=0.0).to(tl.float32)
    for j in range(1, STEPS_IN):
        x_at += x_step
        current = current + tl.load(row + j) * tl.load(x_ptr + x_at, mask=here, other=0.0).to(tl.float32)
    return tl.load(table_ptr + 2 + t) * v + current


@triton.jit
def _fire(m, theta, LEVELS: tl.constexpr):
    y = tl.zeros_like(m)
    for k in tl.static_range(1, LEVELS + 1):
        y = tl.where(m >= theta * k, theta * k, y)
    return y


@triton.jit
def _forward_kernel(
    x_ptr, out_ptr, table_ptr, count, x_step,
    STEPS: tl.constexpr, STEPS_IN: tl.constexpr, LEVELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = i < count
    theta = tl.load(table_ptr)
    v = tl.zeros((BLOCK,), tl.float32) + tl.load(table_ptr + 1)
    at = i
    for t in range(STEPS):
        m = _potential(x_ptr, table_ptr, i, here, x_step, t, v, STEPS, STEPS_IN)
        y = _fire(m, theta, LEVELS)
        v = m - y
        tl.store(out_ptr + at, y.to(out_ptr.dtype.element_ty), mask=here)
        at += count


@triton.jit
def _backward_kernel(
    x_ptr, g_ptr, gx_ptr, table_ptr, passed_ptr, sums_ptr, count, x_step, g_step,
    STEPS: tl.constexpr, STEPS_IN: tl.constexpr, LEVELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = i < count
    sums_ptr += tl.program_id(0).to(tl.int64) * (STEPS + STEPS * STEPS_IN)
    theta = tl.load(table_ptr)
    v = tl.zeros((BLOCK,), tl.float32) + tl.load(table_ptr + 1)
    at, g_at = i, i
    for t in range(STEPS):
        m = _potential(x_ptr, table_ptr, i, here, x_step, t, v, STEPS, STEPS_IN)
        g = tl.load(g_ptr + g_at, mask=here, other=0.0).to(tl.float32)
        g = tl.where((m >= theta * 0.5) & (m <= theta * (LEVELS + 0.5)), g, 0.0)
        tl.store(passed_ptr + at, g, mask=here)
        tl.store(sums_ptr + t, tl.sum(g * v, 0))
        x_at = i
        for j in range(STEPS_IN):
            x = tl.load(x_ptr + x_at, mask=here, other=0.0).to(tl.float32)
            tl.store(sums_ptr + STEPS + t * STEPS_IN + j, tl.sum(g * x, 0))
            x_at += x_step
        v = m - _fire(m, theta, LEVELS)
        at += count
        g_at += g_step
    gx_at = i
    for j in range(STEPS_IN):
        gx = tl.zeros((BLOCK,), tl.float32)
        at = i
        for t in range(STEPS):
            w = tl.load(table_ptr + 2 + STEPS + t * STEPS_IN + j)
            gx += w * tl.load(passed_ptr + at, mask=here, other=0.0)
            at += count
        tl.store(gx_ptr + gx_at, gx.to(gx_ptr.dtype.element_ty), mask=here)
        gx_at += count


def forward(rule: LMHT, x: Tensor, table: Tensor) -> Tensor:
    """As `spiking.kernels.cpu.lmht.forward`."""
    x, table = prepare(x, outer=False), table.contiguous()
    out = like(x, rule.steps, x.dtype)
    count = out.numel() // rule.steps
    if count:
        with torch.cuda.device_of(x):  # Triton launches on the current device
            _forward_kernel[(triton.cdiv(count, BLOCK),)](
                x, out, table, count, x.stride(0),
                STEPS=rule.steps, STEPS_IN=rule.steps_in, LEVELS=rule.levels, BLOCK=BLOCK, **options(),
            )  # fmt: skip
    return out


def backward(rule: LMHT, x: Tensor, table: Tensor, g: Tensor | None) -> tuple[Tensor, Tensor]:
    """As `spiking.kernels.cpu.lmht.backward`."""
    x, table = prepare(x, outer=False), table.contiguous()
    gx = like(x, True, x.dtype)
    g_table = table.new_zeros(len(table), dtype=torch.float64)
    count = gx.numel() // rule.steps_in
    if not count:
        return gx, g_table
    if g is None:
        g = x.new_zeros(()).expand(rule.steps, *x.shape[1:])
    if g.dtype != x.dtype or not same_order(x.shape[1:], g.stride()[1:], x.stride()[1:]):
        g = like(x, rule.steps, x.dtype).copy_(g)
    programs = triton.cdiv(count, BLOCK)
    passed = torch.empty(rule.steps, count, device=x.device)
    sums = torch.empty(programs, len(table) - 2, device=x.device)
    with torch.cuda.device_of(x):
        _backward_kernel[(programs,)](
            x, g, gx, table, passed, sums, count, x.stride(0), g.stride(0),
            STEPS=rule.steps, STEPS_IN=rule.steps_in, LEVELS=rule.levels, BLOCK=BLOCK, **options(),
        )  # fmt: skip
    g_table[2:] = sums.sum(0, dtype=torch.float64)
    return gx, g_table
