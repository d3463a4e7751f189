"""Group-wise spiking self-attention in windows of several sizes, with ExpG-IF activations.

Our reading of the abstract of "Ge2mS-T" (2604.08894), see `zoo.models.ge2mst`.

Axes: T time, B batch, C channels, H W map, h heads, d head width, w side of a window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from spiking.layers import SpikeMatmul
from spiking.neurons import ExpGCode, ExpGIF, ExpGQuant
from zoo.layers.convolution import conv1x1

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    Activation = ExpGQuant | ExpGIF
    MakeActivation = Callable[[ExpGCode | None], Activation]

ONE_BIT = ExpGCode.grouped(1, 1)  # of queries and keys: fires where the potential reaches s / 2


class Layer(nn.Module):
    """ExpG-IF, convolution without bias, norm: ``[B, C, H, W]`` -> ``[B, C', H', W']``, in both forms.

    Args:
        conv: the convolution.
        make: builds one activation.
    """

    def __init__(self, conv: nn.Conv2d, make: MakeActivation) -> None:
        super().__init__()
        self.neuron = make(None)
        self.conv, self.norm = conv, nn.BatchNorm2d(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Real values in, real values out; in between levels or spikes."""
        y: Tensor = self.norm(self.neuron.weigh(self.conv, self.neuron(x)))
        return y


class GWSSA(nn.Module):
    """Group-wise spiking self-attention; without the shortcut.

    ``a = ExpG-IF(x)``; queries and keys are one bit each, values a train of T steps. A group of heads works
    inside windows of its own scale, ``A = q k^T`` counts coincidences, ``o = A v`` adds. The step of the
    neuron behind ``o`` absorbs every scale, so no softmax and no multiplier is left.

    Maps that windows do not tile are padded with zeros at the right and the bottom; zeros have no spikes.

    Args:
        dim: C.
        num_heads: h, shared evenly among the windows.
        windows: side w of the windows of each group of heads.
        make: builds one activation.
    """

    def __init__(self, dim: int, num_heads: int, windows: Sequence[int], make: MakeActivation) -> None:
        super().__init__()
        if dim % num_heads or num_heads % len(windows):
            raise ValueError(
                f"{dim} channels must divide into {num_heads} heads, and these into {len(windows)} groups,"
                f" one for each of the windows {list(windows)}"
            )
        self.num_heads, self.windows = num_heads, tuple(windows)
        self.neuron_in = make(None)
        for name in ("q", "k", "v"):
            self.add_module(f"{name}_conv", conv1x1(dim, dim))
            self.add_module(f"{name}_norm", nn.BatchNorm2d(dim))
        self.q_neuron, self.k_neuron, self.v_neuron = make(ONE_BIT), make(ONE_BIT), make(None)
        self.matmul1 = SpikeMatmul(spike_operand="b")
        self.matmul2 = SpikeMatmul(spike_operand="b")
        self.proj = Layer(conv1x1(dim, dim), make)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` -> ``[B, C, H, W]``."""
        a = self.neuron_in(x)
        q, k, v = (
            self.get_submodule(f"{n}_norm")(self.neuron_in.weigh(self.get_submodule(f"{n}_conv"), a))
            for n in ("q", "k", "v")
        )
        q, k = (self.one_bit(neuron, y) for neuron, y in ((self.q_neuron, q), (self.k_neuron, k)))
        parts = len(self.windows)
        groups = zip(q.chunk(parts, 1), k.chunk(parts, 1), self.windows, strict=True)
        maps = [(self.attention(a, b, w), w) for a, b, w in groups]

        def attend(values: Tensor) -> Tensor:
            """``A v``, of levels ``[B, C, H, W]`` or of one step of every train ``[T * B, C, H, W]``."""
            mixed = [self.mix(m, y, w) for (m, w), y in zip(maps, values.chunk(parts, 1), strict=True)]
            return torch.cat(mixed, dim=1)

        y: Tensor = self.proj(self.v_neuron.weigh(attend, self.v_neuron(v)))
        return y

    def one_bit(self, neuron: Activation, y: Tensor) -> Tensor:
        """0 or 1, emitted once and held: ``[B, C, H, W]``."""
        bits: Tensor = neuron(y)
        return bits[0] if isinstance(neuron, ExpGIF) else bits

    def attention(self, q: Tensor, k: Tensor, window: int) -> Tensor:
        """Coincidences of every two tokens of a window, ``[B, windows, h', w * w, w * w]``."""
        heads = self.num_heads // len(self.windows)
        q, k = to_windows(q, window, heads), to_windows(k, window, heads)
        counts: Tensor = self.matmul1(k.transpose(-1, -2), q)  # [key, query]
        return counts

    def mix(self, attention: Tensor, v: Tensor, window: int) -> Tensor:
        """``A v`` in every window; ``v`` may hold T trains for each of the B attention maps."""
        H, W = v.shape[-2:]
        y = to_windows(v, window, self.num_heads // len(self.windows))  # [T * B, windows, h', d, w * w]
        T = self.v_neuron.code.time_steps if isinstance(self.v_neuron, ExpGIF) else 1
        y = y.reshape(T, *attention.shape[:3], *y.shape[3:])
        # the values of a key go to a query as often as the two coincide
        out = self.matmul2(attention.transpose(-1, -2), y.transpose(-1, -2)).transpose(-1, -2)
        return from_windows(out.flatten(0, 1), window, H, W)


def to_windows(x: Tensor, window: int, heads: int) -> Tensor:
    """``[B, C, H, W]`` -> ``[B, windows, h, d, w * w]``, padded with zeros at the right and the bottom."""
    B, C, H, W = x.shape
    down, right = -H % window, -W % window
    x = F.pad(x, (0, right, 0, down))
    rows, columns = (H + down) // window, (W + right) // window
    x = x.reshape(B, heads, C // heads, rows, window, columns, window)
    return x.permute(0, 3, 5, 1, 2, 4, 6).reshape(B, rows * columns, heads, C // heads, window * window)


def from_windows(x: Tensor, window: int, H: int, W: int) -> Tensor:
    """The inverse of `to_windows`: ``[B, windows, h, d, w * w]`` -> ``[B, h * d, H, W]``."""
    B, _, heads, d, _ = x.shape
    rows, columns = -(-H // window), -(-W // window)
    x = x.reshape(B, rows, columns, heads, d, window, window).permute(0, 3, 4, 1, 5, 2, 6)
    return x.reshape(B, heads * d, rows * window, columns * window)[..., :H, :W]
