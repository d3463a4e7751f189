"""The two passes of a neuron behind a norm on CUDA tensors; see `spiking.kernels.cpu.normed`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton

from spiking.kernels.rules.pooling import WINDOW, kept
from spiking.kernels.triton.normed_writer import normed_kernels
from spiking.kernels.triton.passes import fixed, stacked
from spiking.kernels.triton.runtime import BLOCK, options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from spiking.kernels.operands import Operands
    from spiking.kernels.rules.base import Rule

LARGEST = 2**31  # numbers of a step, whose places are counted in 32 bits


class Behind(NamedTuple):
    """What follows a norm.

    Attributes:
        rule: the neuron.
        params: its fixed numbers.
        operands: its learnt ones.
        steps: T.
        pooling: kind of `spiking.kernels.rules.pooling`, or None.
    """

    rule: Rule
    params: Mapping[str, float]
    operands: Operands
    steps: int
    pooling: str | None


def covers(x: Tensor) -> bool:
    """Whether there are kernels for numbers ``[T', N, C, ...]``, dense and contiguous or channels-last."""
    return x[0].numel() < LARGEST


def _last(x: Tensor) -> bool:
    """Whether channels lie side by side in steps ``[N, C, ...]``."""
    return not x.is_contiguous()


def _sizes(x: Tensor, pooling: str | None) -> tuple[int, ...]:
    """Of a step ``[N, C, ...]``, as the kernels name them."""
    channels, last = x.shape[1], _last(x)
    if pooling:
        return channels, channels if last else 1, x.shape[3] // 2, x.shape[2] // 2
    return channels, 1 if last else x[0, 0].numel()


def _room(x: Tensor, steps: int, pooling: str | None) -> Tensor:
    """Room for what leaves ``steps`` steps like ``x [N, C, ...]``, in its layout."""
    shape = (*x.shape[:2], *(n // 2 for n in x.shape[2:])) if pooling else x.shape
    if not _last(x):
        return x.new_empty(steps, *shape)
    return x.new_empty(steps, shape[0], *shape[2:], shape[1]).movedim(-1, 2)


def fire(behind: Behind, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Spikes of a neuron at rest whose currents are ``scale * x + shift``; or pooled ones."""
    rule, params, operands, steps, pooling = behind
    out = _room(x[0], steps, pooling)
    learnt = stacked(rule, operands)
    kernel, _ = normed_kernels(rule, pooling, still=False)
    count = out[0].numel()
    with torch.cuda.device_of(x):
        kernel[(triton.cdiv(count, BLOCK),)](
            x, out, scale, shift, x if learnt is None else learnt,
            count, steps, 0 if len(x) < steps else x[0].numel(),
            *_sizes(x[0], pooling), *fixed(rule, params), BLOCK=BLOCK, **options(),
        )  # fmt: skip
    return out


def fire_backward(
    behind: Behind, x: Tensor, scale: Tensor, shift: Tensor, g: Tensor
) -> tuple[Tensor, Mapping[str, Any]]:
    """Gradients of the currents, ``[T', N, C, ...]``, and of the learnt numbers by name."""
    rule, params, operands, steps, pooling = behind
    still = len(x) < steps
    room = _room(x[0], steps, pooling)
    if g.dtype is not room.dtype or g.stride() != room.stride():
        g = room.copy_(g)
    count = g[0].numel()
    gx = _room(x[0], len(x), None)
    programs, learnt = triton.cdiv(count, BLOCK), stacked(rule, operands)
    sums = torch.zeros(programs, len(rule.learnt), device=x.device)
    rows = steps * kept(rule.n_saved, pooling) * (WINDOW if pooling else 1)
    scratch = torch.empty(rows, count, device=x.device)
    _, kernel = normed_kernels(rule, pooling, still)
    with torch.cuda.device_of(x):
        kernel[(programs,)](
            x, g, gx, scale, shift, x if learnt is None else learnt, scratch, sums,
            count, steps, 0 if still else x[0].numel(), g.stride(0),
            *_sizes(x[0], pooling), *fixed(rule, params), BLOCK=BLOCK, **options(),
        )  # fmt: skip
    totals = sums.sum(0, dtype=torch.float64).unbind()
    return gx, dict(zip(rule.learnt, totals, strict=True))


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of ``[N, C, ...]``, in float64 as on CPUs."""
    var, mean = torch.var_mean(x.float(), (0, *range(2, x.dim())), correction=0)
    return mean.double(), var.double()


def norm_backward(
    g: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, invstd: Tensor, moving: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias by that of the norm's output, ``[N, C, ...]`` both.

    Args:
        g: gradient.
        x: what the norm was given.
        weight: its gain ``[C]``, 1 if None.
        mean: ``[C]``.
        invstd: ``[C]``.
        moving: whether these two are of ``x``.
    """
    # in evaluation PyTorch takes a variance, and adds nothing to it here
    fixed_numbers = (None, None) if moving else (mean, invstd.square().reciprocal())
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
        g, x, weight, *fixed_numbers, mean, invstd, moving, 0.0, [True, True, True]
    )
    return found
