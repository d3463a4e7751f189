"""The two passes of LM-HT on CPU tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spiking.kernels.cpu.arguments import Arguments
from spiking.kernels.cpu.codegen import LANES
from spiking.kernels.cpu.runtime import DTYPES, can_stream, run, threads_for
from spiking.kernels.layout import like, prepare, same_order

if TYPE_CHECKING:
    from spiking.kernels.rules.neurons import LMHT


def forward(rule: LMHT, x: Tensor, table: Tensor) -> Tensor:
    """Outputs ``[T, ...]`` of currents ``[T', ...]``; ``table`` as in `MixingWriter`, float32."""
    x, table = prepare(x, outer=False), table.contiguous()
    out = like(x, rule.steps, x.dtype)
    if out.numel() == 0:
        return out
    arguments = _arguments(rule, x, table)
    arguments.out = out.data_ptr()
    _launch(rule, False, x, out, arguments)
    return out


def backward(rule: LMHT, x: Tensor, table: Tensor, g: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gradients of ``x``, and of ``table`` in float64 (0 for threshold and first potential)."""
    x, table = prepare(x, outer=False), table.contiguous()
    gx = like(x, True, x.dtype)
    learnt = rule.steps * (1 + rule.steps_in)  # leak and matrix, behind threshold and first potential
    if gx.numel() == 0:
        return gx, table.new_zeros(len(table), dtype=torch.float64)
    if g is None:
        g = x.new_zeros(()).expand(rule.steps, *x.shape[1:])
    if g.dtype != x.dtype or not same_order(x.shape[1:], g.stride()[1:], x.stride()[1:]):
        g = like(x, rule.steps, x.dtype).copy_(g)
    arguments = _arguments(rule, x, table)
    sums = torch.zeros(threads_for(gx.numel(), arguments.neurons), learnt, LANES, dtype=torch.float64)
    arguments.g, arguments.g_step, arguments.gx = g.data_ptr(), g.stride(0), gx.data_ptr()
    arguments.sums, arguments.sums_size = sums.data_ptr(), sums[0].nbytes
    _launch(rule, True, x, gx, arguments)
    return gx, torch.nn.functional.pad(sums.sum((0, 2)), (len(table) - learnt, 0))


def _arguments(rule: LMHT, x: Tensor, table: Tensor) -> Arguments:
    neurons = x.numel() // rule.steps_in
    arguments = Arguments()
    arguments.x, arguments.x_step, arguments.out_step = x.data_ptr(), x.stride(0), neurons
    arguments.coefficients = table.data_ptr()
    arguments.steps, arguments.neurons, arguments.repeats = rule.steps, neurons, 1
    return arguments


def _launch(rule: LMHT, back: bool, x: Tensor, result: Tensor, arguments: Arguments) -> None:
    stored, count = DTYPES[x.dtype], result.numel()
    stream = can_stream(stored, count, arguments.neurons, result)
    run(rule, back, stored, stream, arguments, threads_for(count, arguments.neurons))
