"""Dual spike self-attention (DSSA) of SpikingResformer (2403.14302), scaled by running firing rates.

Axes: T time, B batch, C channels, H W map, N = H * W tokens, M tokens of the patch convolution's map,
h heads, d = C / h head width.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from typing_extensions import override

from spiking.layers import SpikeMatmul, TimeBatchNorm2d, fold_time, mean_over_ranks
from zoo.layers.attention import check_heads

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from zoo.layers.convolution import MakeNeuron

RATE_MOMENTUM = 0.999  # of the firing-rate buffers; upstream models/submodules/dssa.py
RATE_FLOOR = 1e-7  # keeps 1 / sqrt(rate) finite for a head that never fires; trained rates lie above


class DSSA(nn.Module):
    """Dual spike self-attention: spikes attend to a learned, strided view of themselves.

    With ``k`` the input spikes and ``y1, y2`` the two halves (inside each head) of
    ``BN(Conv_p(k))``::

        a = SN(c1 * y1^T k)        [T, B, h, M, N]     c1 = 1 / sqrt(f_x * d)
        o = SN(c2 * y2 a)          [T, B, h, d, N]     c2 = 1 / sqrt(f_attn * lenth)
        out = BN(Conv1x1(o)) + x

    ``f_x`` and ``f_attn`` are running firing rates, one a head. In training they move before they
    are used, are averaged over the ranks of a distributed run, and stay still while activation
    checkpointing recomputes. Where they were never set, the rate of the batch at hand is used.

    Args:
        dim: C.
        num_heads: h.
        lenth: M that c2 was trained for (upstream's spelling), used with ``lenth_from="img_size"``.
        patch_size: p, kernel and stride of the patch convolution.
        make_neuron: builds one neuron.
        lenth_from: ``"map"`` takes M from the actual map, ``"img_size"`` the constant ``lenth``.
    """

    firing_rate_x: Tensor
    firing_rate_attn: Tensor
    update_statistics: bool  # switched off while activation checkpointing recomputes

    def __init__(
        self,
        dim: int,
        num_heads: int,
        lenth: int,
        patch_size: int,
        make_neuron: MakeNeuron,
        lenth_from: Literal["map", "img_size"] = "map",
    ) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, check_heads(dim, num_heads)
        self.head_dim = dim // num_heads
        self.lenth, self.lenth_from, self.patch_size = lenth, lenth_from, patch_size
        self.update_statistics = True
        self.rates_known = False  # saves the batch's rate in evaluation once buffers are seen set
        self.register_buffer("firing_rate_x", torch.zeros(1, 1, num_heads, 1, 1))
        self.register_buffer("firing_rate_attn", torch.zeros(1, 1, num_heads, 1, 1))
        self.activation_in = make_neuron()
        self.W = nn.Conv2d(dim, 2 * dim, patch_size, stride=patch_size, bias=False)
        self.norm = TimeBatchNorm2d(2 * dim)
        self.matmul1 = SpikeMatmul(spike_operand="b")
        self.activation_attn = make_neuron()
        self.matmul2 = SpikeMatmul(spike_operand="b")
        self.activation_out = make_neuron()
        self.Wproj = nn.Conv2d(dim, dim, 1, bias=False)
        self.norm_proj = TimeBatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[T, B, C, H, W]``."""
        T, B, C, H, W = x.shape
        h, d = self.num_heads, self.head_dim
        if min(H, W) < self.patch_size:
            raise ValueError(
                f"the map [H, W] = [{H}, {W}] is smaller than the attention patch of"
                f" {self.patch_size}; feed larger images or build with smaller patch_sizes"
            )
        k = self.activation_in(x)
        y = self.norm(fold_time(self.W, k))
        M = y.shape[-2] * y.shape[-1]
        y1, y2 = y.reshape(T, B, h, 2 * d, M).split(d, dim=3)
        k = k.reshape(T, B, h, d, H * W)
        # the factors go to the small operands: the M x N products are far larger
        c1 = self._factor(self.firing_rate_x, k, d)
        a = self.activation_attn(self.matmul1((y1 * c1).to(y.dtype).transpose(-1, -2), k))
        c2 = self._factor(self.firing_rate_attn, a, self._lenth(M))
        o = self.matmul2((y2 * c2).to(y.dtype), a).reshape(T, B, C, H, W)
        out: Tensor = self.norm_proj(fold_time(self.Wproj, self.activation_out(o)))
        return out + x

    def _factor(self, buffer: Tensor, spikes: Tensor, count: int) -> Tensor:
        """``1 / sqrt(rate * count)``, ``[1, 1, h, 1, 1]``; moves the rate first in training."""
        moving = self.training and self.update_statistics
        if self.rates_known and not moving and not torch.compiler.is_compiling():
            rate = buffer
        else:
            with torch.no_grad():
                rate = spikes.mean(dim=(0, 1, 3, 4), keepdim=True, dtype=buffer.dtype)
                if moving:
                    rate = mean_over_ranks(rate)  # the authors' is one process's, which DDP overwrites
                unset = (buffer == 0).all()  # all heads, as upstream: one head may stay silent
                start = torch.where(unset, rate, buffer)
                if moving:
                    rate = RATE_MOMENTUM * start + (1 - RATE_MOMENTUM) * rate
                    buffer.copy_(rate)
                elif self.training:
                    rate = buffer.clone()  # the recomputation sees what the first pass used
                else:
                    rate = start
        return (rate.clamp_min(RATE_FLOOR) * count).rsqrt()

    def _lenth(self, actual: int) -> int:
        if self.lenth_from == "map":
            return actual
        if actual != self.lenth and not torch.compiler.is_compiling():
            warnings.warn(
                f"the attention map has {actual} rows but its scale was trained for {self.lenth};"
                " build the model with the img_size of the input, or set lenth_from='map' to take"
                " the scale from the map",
                stacklevel=2,
            )
        return self.lenth

    def train(self, mode: bool = True) -> DSSA:
        """Switch mode; whether the rates are set is looked up again."""
        self.rates_known = False
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.rates_known = False
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DSSA:
        # The rates go through as vectors, because with five axes channels_last refuses them, and stay
        # float32 in .half() and .bfloat16(): a moving average of 0.999 stalls there (near 0.2 the
        # spacing of float16 is 1.2e-4, more than a usual step).
        rates = {name: getattr(self, name) for name in ("firing_rate_x", "firing_rate_attn")}
        for name, rate in rates.items():
            self._buffers[name] = rate.flatten()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, rate in rates.items():
            moved = getattr(self, name)
            if moved.dtype in (torch.float16, torch.bfloat16):
                moved = rate.to(moved.device)
            self._buffers[name] = moved.reshape(rate.shape)
        return self

    @override
    def extra_repr(self) -> str:
        return f"dim={self.dim}, num_heads={self.num_heads}, patch_size={self.patch_size}"
