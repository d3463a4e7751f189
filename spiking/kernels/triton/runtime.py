"""What all Triton kernels share: how they are launched, and in which form tensors reach them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from spiking.kernels.layout import like, same_order

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 256  # neurons of one program


def interpreted() -> bool:
    """Whether Triton runs its kernels in Python, on any device."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def options() -> dict[str, Any]:
    """No fused multiply-add: spikes must have the bits of single operations."""
    return {} if interpreted() else {"enable_fp_fusion": False}


def arriving(x: Tensor, g: Tensor | None) -> Tensor:
    """The gradient of the spikes ``[T, ...]`` in dtype and memory order of ``x``; None is zero."""
    if g is None:
        g = x.new_zeros(()).expand(x.shape)
    if g.dtype != x.dtype or not same_order(x.shape[1:], g.stride()[1:], x.stride()[1:]):
        g = like(x, steps=True, dtype=x.dtype).copy_(g)
    return g
