"""Operators of torch that multiply and add, with the operands that may be spikes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from spiking.measure.operations import Work, convolution, product

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# where the left operand stands among the arguments
PRODUCTS = {
    "mm": 0, "bmm": 0, "mv": 0, "dot": 0, "vdot": 0, "_scaled_mm": 0, "linalg_vecdot": 0,
    "addmm": 1, "baddbmm": 1, "addbmm": 1, "addmv": 1,
}  # fmt: skip
CONVOLUTIONS = frozenset({"convolution", "_convolution", "cudnn_convolution", "convolution_overrideable"})
ATTENTION = frozenset(
    {
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_fused_attention_overrideable",
    }
)
COUNTED = frozenset(PRODUCTS) | CONVOLUTIONS | ATTENTION

# These move values or make them, and compute nothing.
_MOVES = """
    alias arange as_strided bernoulli cat channel_shuffle clone constant_pad_nd contiguous copy
    detach embedding empty empty_like empty_strided expand eye fill flip full full_like gather im2col
    index index_put index_select item lift lift_fresh lift_fresh_copy local_scalar_dense masked_fill
    new_empty new_empty_strided new_full new_ones new_zeros normal ones ones_like permute pixel_shuffle
    pixel_unshuffle rand rand_like randint randn randn_like randperm reflection_pad1d reflection_pad2d
    reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d
    reshape_alias resize roll scalar_tensor scatter select_scatter slice_scatter stack to_copy tril triu
    uniform unsafe_view view where zero zeros zeros_like
"""
MOVES = frozenset(_MOVES.split())


@dataclass(frozen=True, kw_only=True)
class Call:
    """One product of weights or signals.

    Attributes:
        kind: ``conv``, ``linear`` or ``matmul``.
        label: of the operator in a report.
        operands: those that may be spikes, each with what it would do; where both are, the cheaper
            one counts.
        leading: leading axes of the input, in which time and batch are.
        space: axes of space of a convolution.
    """

    kind: str
    label: str
    operands: tuple[tuple[Tensor, Work], ...]
    leading: tuple[int, ...]
    space: int = 0


def calls(name: str, args: tuple[Any, ...], is_weight: Callable[[Tensor], bool]) -> list[Call]:
    """The products in one call of an operator of `COUNTED`.

    Args:
        name: of the operator, without its namespace.
        args: its arguments.
        is_weight: whether a tensor is a parameter of the model.
    """
    if name in CONVOLUTIONS:
        return [_convolution(args)]
    if name in ATTENTION:
        return _attention(*args[:3])
    at = PRODUCTS[name]
    a, b = args[at], args[at + 1]
    if a.dim() == 1:
        a = a.unsqueeze(0)
    if b.dim() == 1:
        b = b.unsqueeze(-1)
    return [_product(a, b, is_weight)]


def named(operator: Any) -> str:
    """Name of an operator without overload and, for torch's own, without namespace."""
    space, _, name = str(operator.overloadpacket._qualified_op_name).partition("::")
    return name if space == "aten" else f"{space}::{name}"


def plain(name: str) -> str:
    """What users call the operator: ``_softmax`` is ``softmax``, ``native_layer_norm`` ``layer_norm``."""
    for norm in ("batch_norm", "layer_norm", "group_norm", "instance_norm"):
        if norm in name:
            return norm
    return name.strip("_")


def _convolution(args: tuple[Any, ...]) -> Call:
    x, weight = args[:2]
    names = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
    work = convolution(x.unsqueeze(0), weight.shape, **dict(zip(names, args[3:9], strict=True)))
    return Call(
        kind="conv",
        label="conv",
        operands=((x, work),),
        leading=tuple(x.shape[:1]),
        space=weight.dim() - 2,
    )


def _product(a: Tensor, b: Tensor, is_weight: Callable[[Tensor], bool]) -> Call:
    left = (a, product(a.unsqueeze(0), b.shape, "a"))
    right = (b, product(b.unsqueeze(0), a.shape, "b"))
    if is_weight(b):
        return Call(kind="linear", label="linear", operands=(left,), leading=tuple(a.shape[:1]))
    if is_weight(a):
        return Call(kind="linear", label="linear", operands=(right,), leading=tuple(b.shape[-1:]))
    return Call(kind="matmul", label="matmul", operands=(left, right), leading=tuple(a.shape[:1]))


def _attention(query: Tensor, key: Tensor, value: Tensor) -> list[Call]:
    groups = query.shape[1] // key.shape[1]  # heads that share keys and values
    key, value = (x.repeat_interleave(groups, 1) if groups > 1 else x for x in (key, value))
    scores = (*query.shape[:-1], key.shape[-2])
    leading = tuple(query.shape[:1])
    keys = key.transpose(-2, -1)
    both = (
        (query, product(query.unsqueeze(0), keys.shape, "a")),
        (keys, product(keys.unsqueeze(0), query.shape, "b")),
    )
    values = ((value, product(value.unsqueeze(0), torch.Size(scores), "b")),)
    return [
        Call(kind="matmul", label="attention_scores", operands=both, leading=leading),
        Call(kind="matmul", label="attention_values", operands=values, leading=leading),
    ]
