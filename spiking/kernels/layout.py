"""How tensors lie in memory: neurons do not mind the order of axes, only that nothing is copied."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


def is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether elements fill their memory without gaps or overlaps, in any order of axes."""
    expected = 1
    for stride, size in sorted((st, n) for st, n in zip(strides, shape, strict=True) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def steps_are_dense(x: Tensor, outer: bool) -> bool:
    """Whether each step of ``x`` fills its memory; with ``outer`` the batch axis must be the slowest."""
    shape, strides = x.shape[1:], x.stride()[1:]
    if outer and len(shape) > 1 and shape[0] > 1 and strides[0] < max(strides):
        return False
    return is_dense(shape, strides)


def prepare(x: Tensor, outer: bool) -> Tensor:
    """``x`` as it is if `steps_are_dense`, else a contiguous copy."""
    return x if x.is_contiguous() or steps_are_dense(x, outer) else x.contiguous()


def over_neurons(values: Tensor, x: Tensor) -> Tensor:
    """Parameters as ``[n, P]`` float32, one value a neuron, in the memory order of a step of ``x``.

    Args:
        values: ``[n, ...]``, broadcastable to one sample of a step.
        x: currents ``[T, B, ...]``.
    """
    inner, strides = x.shape[2:], x.stride()[2:]
    wide = values.float().expand(-1, *inner)
    # Otherwise the kernels work on a contiguous copy; and compilers cannot sort strides of unknown sizes.
    if not x.is_contiguous() and steps_are_dense(x, outer=True):
        order = sorted(range(len(inner)), key=lambda axis: (strides[axis], inner[axis]), reverse=True)
        wide = wide.permute(0, *(axis + 1 for axis in order))
    return wide.reshape(values.shape[0], math.prod(inner))


def like(x: Tensor, steps: bool | int, dtype: torch.dtype) -> Tensor:
    """An empty tensor in the memory order of a prepared ``x``: all its steps, a single one, or a number."""
    if steps is True and dtype is x.dtype and x.is_contiguous():
        return torch.empty_like(x)  # a third of the time that the same by shape takes
    shape = x.shape[1:] if steps is False else x.shape if steps is True else (steps, *x.shape[1:])
    if x.is_contiguous():
        return torch.empty(shape, dtype=dtype, device=x.device)
    inner = x.stride()[1:]
    strides = inner if steps is False else (x[0].numel(), *inner)
    return torch.empty_strided(shape, strides, dtype=dtype, device=x.device)


def same_order(shape: Sequence[int], a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether two layouts of one shape are the same; strides of axes of size 1 do not count."""
    return a == b or all(i == j or n == 1 for n, i, j in zip(shape, a, b, strict=True))


def in_order_of(x: Tensor, v: Tensor) -> Tensor:
    """A state as float32 in the memory order of one step of ``x``."""
    if v.dtype is torch.float32 and same_order(v.shape, v.stride(), x.stride()[1:]):
        return v
    return like(x, False, torch.float32).copy_(v)
