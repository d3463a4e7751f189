"""Self-attention on spikes: projections by heads, and the attention that several architectures use.

Axes: T time, B batch, C channels, H W map, N = H * W tokens, h heads, d = C / h head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from typing_extensions import override

from spiking.layers import SpikeMatmul
from zoo.layers.convolution import conv_norm_fire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from zoo.layers.convolution import MakeNeuron

V_ATTENTION = 0.5  # threshold of the neuron behind the attention, in Spikformer's line


def check_heads(dim: int, num_heads: int) -> int:
    """The number of heads.

    Raises:
        ValueError: it does not divide the channels.
    """
    if dim % num_heads:
        raise ValueError(f"{dim} channels do not divide into {num_heads} heads")
    return num_heads


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """``[T, B, C, H, W]`` -> ``[T, B, h, d, N]``."""
    T, B, C = x.shape[:3]
    return x.reshape(T, B, num_heads, C // num_heads, -1)


class SpikingProjections(nn.Module):
    """Attention on spikes: layers ``q_conv``, ``q_bn`` and ``q_lif`` make the queries, and so on.

    Args:
        dim: C.
        num_heads: h.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = check_heads(dim, num_heads)

    def add_projections(
        self, names: Iterable[str], dim: int, make_neuron: MakeNeuron, bias: bool = False
    ) -> None:
        """Add a 1x1 convolution, a norm and a neuron for each name.

        Subclasses call it where their state dicts have these layers.
        """
        for name in names:
            self.add_module(f"{name}_conv", nn.Conv2d(dim, dim, 1, bias=bias))
            self.add_module(f"{name}_bn", nn.BatchNorm2d(dim))
            self.add_module(f"{name}_lif", make_neuron())

    def fire(self, name: str, x: Tensor) -> Tensor:
        """Spikes of one projection: ``[T, B, C, H, W]`` -> ``[T, B, C, H, W]``."""
        conv, norm = self.get_submodule(f"{name}_conv"), self.get_submodule(f"{name}_bn")
        return conv_norm_fire(conv, norm, self.get_submodule(f"{name}_lif"), x)

    def project(self, name: str, x: Tensor) -> Tensor:
        """Spikes of one projection by heads: ``[T, B, C, H, W]`` -> ``[T, B, h, d, N]``."""
        return split_heads(self.fire(name, x), self.num_heads)

    @override
    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}"


class SSA(SpikingProjections):
    """Spiking self-attention of Spikformer (2209.15425), linear in the number of tokens.

    With ``q, k, v = SN(BN(Conv1x1(x)))`` split into heads ``[d, N]``::

        out = SN(BN(Conv1x1(SN_0.5(scale * (v k^T) q))))

    The paper writes ``(q k^T) v`` with tokens as rows; without a softmax between them the products
    commute, and their values are integers.

    Args:
        dim: C.
        num_heads: h.
        make_neuron: builds one neuron.
        make_attn_neuron: builds the neuron behind the attention.
        scale: of the product; 0.125, on events 0.25.
        qkv_bias: whether the convolutions of q, k and v have a bias.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        make_neuron: MakeNeuron,
        make_attn_neuron: MakeNeuron,
        scale: float = 0.125,
        qkv_bias: bool = False,
    ) -> None:
        super().__init__(dim, num_heads)
        self.scale = scale
        self.add_projections("qkv", dim, make_neuron, qkv_bias)
        self.matmul1 = SpikeMatmul(spike_operand="b")
        self.matmul2 = SpikeMatmul(spike_operand="b")
        self.attn_lif = make_attn_neuron()
        self.proj_conv, self.proj_bn = nn.Conv2d(dim, dim, 1), nn.BatchNorm2d(dim)
        self.proj_lif = make_neuron()

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> spikes ``[T, B, C, H, W]``."""
        q, k, v = (self.project(name, x) for name in "qkv")
        attended = self.matmul2(self.matmul1(v, k.transpose(-1, -2)), q) * self.scale
        spikes = self.attn_lif(attended.reshape(x.shape))
        return self.fire("proj", spikes)

    @override
    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale={self.scale:g}"
