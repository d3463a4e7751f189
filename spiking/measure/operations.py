"""The arithmetic of one operation: what its operands cost, whoever asks.

Networks that run directly (`spiking.measure.counter`) and converted networks, whose graph is interpreted,
count with these functions, so that one definition holds everywhere.

A MAC is one weight that meets one kernel position of one output, **positions on zero padding included**. So
count ``torch.utils.flop_counter``, fvcore and the tables of the papers. A spike causes an addition at every
weight and output that it really reaches, fewer at a border. To keep both comparable, additions are scaled by
(MACs with padding) / (MACs without), so that a layer whose inputs all fire once costs as many additions as
the same layer in an ANN costs MACs, and the ratio of the two energies never profits from padding.

Axes: T time; counts are float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

Sizes = int | str | tuple[int, ...] | list[int]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one operation does with the entries of one operand.

    Attributes:
        reached: entries times the weights that they really meet, at each step ``[T]``.
        entries: sum of the entries at each step ``[T]``.
        real: ``reached`` of one step if every entry were 1; no padding in it.
        dense: MACs of one step, kernel positions on zero padding included.
        elements: entries of one step.
    """

    reached: Tensor
    entries: Tensor
    real: int
    dense: int
    elements: int

    @property
    def sops(self) -> Tensor:
        """Additions at each step ``[T]``; ``dense`` where every entry is 1."""
        if self.real in (0, self.dense):
            return self.reached
        return self.reached * self.dense / self.real


def linear(x: Tensor, out_features: int) -> Work:
    """A linear layer: every entry meets ``out_features`` weights.

    Args:
        x: input ``[T, ..., I]``; only magnitudes matter.
        out_features: O.
    """
    return _shared(x, out_features)


def product(x: Tensor, other: Sequence[int], side: Literal["a", "b"]) -> Work:
    """One operand of ``a @ b``: an entry meets a row, or a column, of the other; batch axes broadcast.

    Args:
        x: the operand ``[T, ..., M, K]`` (``side="a"``) or ``[T, ..., K, N]``.
        other: shape of the other operand.
        side: which operand ``x`` is.
    """
    fan = other[-1] if side == "a" else other[-2]
    batch = prod(torch.broadcast_shapes(x.shape[1:-2], tuple(other[:-2])))
    return _shared(x, fan * (batch // max(prod(x.shape[1:-2]), 1)))


def convolution(
    x: Tensor,
    weight: Sequence[int],
    *,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    transposed: bool = False,
    output_padding: Sizes = 0,
    padding_mode: str = "zeros",
) -> Work:
    """A convolution, or a transposed one, over one to three axes of space.

    Args:
        x: input ``[T, ..., C, *space]``; only magnitudes matter.
        weight: shape of the weights, ``(O, C / groups, *kernel)``, transposed ``(C, O / groups, *kernel)``.
        stride: of the convolution; a number or one for each axis, as the others.
        padding: of the convolution; also ``"same"`` and ``"valid"``.
        dilation: of the convolution.
        groups: of the convolution.
        transposed: whether it is a transposed convolution; cropped outputs count as padding.
        output_padding: of a transposed convolution.
        padding_mode: as in ``nn.Conv2d``; only zeros cost nothing.
    """
    kernel = tuple(weight[2:])
    n = len(kernel)
    fan_out = weight[1] if transposed else weight[0] // groups
    mode = "transposed" if transposed else padding_mode
    strides, dilations, extra = _each(stride, n), _each(dilation, n), _each(output_padding, n)
    pads = _pads(padding, kernel, dilations)
    reached, positions, outputs = _magnitude(x).sum(tuple(range(1, x.dim() - n)), dtype=torch.float64), 1, 1
    for axis, size in enumerate(x.shape[-n:]):
        k, s, p, d = kernel[axis], strides[axis], pads[axis], dilations[axis]
        if transposed:
            out = (size - 1) * s - p + d * (k - 1) + extra[axis] + 1
        else:
            out = (size + p - d * (k - 1) - 1) // s + 1
        fan = _fan_out(size, out, k, s, p // 2, d, mode)
        reached = torch.tensordot(reached, reached.new_tensor(fan), ([1], [0]))
        positions, outputs = positions * sum(fan), outputs * out
    lanes = prod(x.shape[1:-n]) * fan_out
    return Work(
        reached=reached * fan_out,
        entries=_total(x),
        real=positions * lanes,
        dense=(prod(x.shape[-n:]) if transposed else outputs) * prod(kernel) * lanes,
        elements=x[0].numel(),
    )


def attention_macs(query: Sequence[int], key: Sequence[int], value: Sequence[int]) -> tuple[int, int]:
    """MACs of ``q k^T`` and of ``softmax(q k^T) v`` for shapes ``[..., h, L, d]``; a mask saves nothing."""
    heads, length, source = prod(query[:-2]), query[-2], key[-2]
    return heads * length * query[-1] * source, heads * length * source * value[-1]


def partial_products(
    product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, known_a: Tensor, known_b: Tensor
) -> Tensor:
    """``a_t b_t + a_t B + A b_t`` of masks ``[T, B, ...]``: ``[T]``; may be more than the dense product.

    Args:
        product: counts at each step ``[T]`` of the product of two masks.
        a: where the left operand sends something, ``[T, B, ...]``.
        b: where the right one does.
        known_a: where the left operand is known already.
        known_b: where the right one is.
    """
    return product(a, b) + product(a, known_b) + product(known_a, b)


def sent_before(x: Tensor) -> Tensor:
    """Whether anything was sent before step t: ``[T, ...]``.

    Args:
        x: what is sent ``[T, ...]``.
    """
    earlier = (x != 0).cumsum(0)
    return torch.cat([torch.zeros_like(earlier[:1]), earlier[:-1]]) > 0


def _shared(x: Tensor, fan: int) -> Work:
    entries, elements = _total(x), x[0].numel()
    return Work(
        reached=entries * fan, entries=entries, real=elements * fan, dense=elements * fan, elements=elements
    )


def _total(x: Tensor) -> Tensor:
    """Sum of magnitudes at each step ``[T]``."""
    return _magnitude(x).flatten(1).sum(1, dtype=torch.float64)


def _magnitude(x: Tensor) -> Tensor:
    return x if x.dtype == torch.bool else x.abs()


def _each(value: Sizes, n: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * n
    assert not isinstance(value, str)
    return tuple(value) * n if len(value) == 1 else tuple(value)


def _pads(padding: Sizes, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    """Padding of both ends together; where it is odd, the smaller half comes first."""
    if padding == "same":
        return tuple(d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
    if padding == "valid":
        return (0,) * len(kernel)
    return tuple(2 * p for p in _each(padding, len(kernel)))


@lru_cache(maxsize=1024)
def _fan_out(
    size: int, out: int, kernel: int, stride: int, padding: int, dilation: int, mode: str
) -> tuple[int, ...]:
    """How many (output, tap) pairs along one axis read (or, transposed, write from) each position."""
    counts = [0] * size
    if mode == "transposed":
        for i in range(size):
            counts[i] = sum(0 <= i * stride - padding + j * dilation < out for j in range(kernel))
        return tuple(counts)
    for o in range(out):
        for j in range(kernel):
            i = o * stride - padding + j * dilation
            if mode == "circular":
                i %= size
            elif mode == "replicate":
                i = min(max(i, 0), size - 1)
            elif mode == "reflect":
                i = -i if i < 0 else i
                i = 2 * (size - 1) - i if i >= size else i
            if 0 <= i < size:
                counts[i] += 1
    return tuple(counts)
