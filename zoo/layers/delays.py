"""Synapses that hand a spike on later: a linear layer with a learnt delay for every connection.

Axes: T time, B batch, C channels, H W map, D longest delay in steps, plus 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from typing_extensions import override

from spiking.neurons.base import Temporal


class DelayedLinear(Temporal):
    """``y[t] = sum over inputs c of w[c] x[t - d[c]]``, pointwise on maps; weights and delays are learnt.

    A delay lies between steps, so each connection is a Gaussian over the steps around it, normalised to its
    weight, and the layer a convolution over time (DCLS-Delays, Hammouamri et al., arXiv 2306.17670, with
    Gaussians of one width throughout instead of ever narrower ones). The past before the first step is
    silence. In a stream the last D - 1 inputs are the state.

    Args:
        c_in: C of the input.
        c_out: C of the output.
        taps: D.
        width: standard deviation of the Gaussians, in steps.

    Raises:
        ValueError: no tap, or a width that is not positive.
    """

    def __init__(self, c_in: int, c_out: int, taps: int, width: float = 0.75) -> None:
        super().__init__()
        if taps < 1 or not width > 0:
            raise ValueError(f"taps must be at least 1 and width above 0, got {taps} and {width}")
        self.taps, self.width = taps, width
        self.weight = nn.Parameter(torch.empty(c_out, c_in, 1, 1))
        self.delay = nn.Parameter(torch.empty(c_out, c_in, 1, 1))
        nn.init.normal_(self.weight, std=math.sqrt(2.0 / c_in))
        nn.init.uniform_(self.delay, 0.0, float(taps - 1))

    def kernel(self) -> Tensor:
        """What an input adds to the outputs 0 .. D - 1 steps later, ``[C', C, D]``."""
        steps = torch.arange(self.taps, device=self.delay.device, dtype=self.delay.dtype)
        delay = self.delay[..., 0].clamp(0.0, float(self.taps - 1))
        shares = (-0.5 * ((steps - delay) / self.width) ** 2).softmax(-1)
        return self.weight[..., 0] * shares

    @override
    def initial_state(self, x: Tensor) -> Tensor:
        """No input so far ``[D - 1, B, C, H, W]``."""
        return x.new_zeros(self.taps - 1, *x.shape)

    def run(self, x: Tensor, state: Tensor | None, keep_state: bool) -> tuple[Tensor, Tensor | None]:
        """``[T, B, C, H, W]`` -> ``[T, B, C', H, W]``; the state: the last inputs ``[D - 1, B, C, H, W]``."""
        past = x.new_zeros(self.taps - 1, *x.shape[1:]) if state is None else state
        whole = torch.cat([past, x])
        T, B, _, H, W = x.shape
        rows = whole.permute(1, 3, 4, 2, 0).flatten(0, 2)
        y = nn.functional.conv1d(rows, self.kernel().to(x.dtype).flip(-1))
        inner = y.reshape(B, H, W, -1, T).permute(4, 0, 1, 2, 3).contiguous()  # channels innermost
        y = inner.permute(0, 1, 4, 2, 3)
        return y, whole[len(whole) - self.taps + 1 :] if keep_state else None

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, taps={self.taps}, width={self.width:g}"
