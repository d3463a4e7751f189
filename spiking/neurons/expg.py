"""ExpG-IF: integrate-and-fire with a grouped exponential code, lossless from a quantised network.

After "Ge2mS-T: Multi-Dimensional Grouping for Ultra-High Energy Efficiency in Spiking Transformer", arXiv
2604.08894, of which only the abstract could be read: **everything here is our reading of it.** T steps form
groups; all steps of a group share one weight, halved from group to group, and a spike train stands for
``s * sum_t omega_t o_t``. A neuron charges over the whole window of its inputs, then fires greedily, largest
weight first. If the weights are complete (no gap between them), that writes every level 0 ... L exactly, so
that a network trained with `ExpGQuant` and the spiking one with `ExpGIF` agree at any depth.

Axes: T time, B batch, C channels, L levels above 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from spiking.layers import mean_over_ranks
from spiking.neurons.base import Neuron

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class ExpGCode:
    """Weights of the steps and the levels that their spike trains can write.

    Attributes:
        weights: omega, whole numbers, largest first unless interleaved; the smallest is 1.
        most_spikes: no train has more spikes than this; None for no limit.
    """

    weights: tuple[int, ...]
    most_spikes: int | None = None

    def __post_init__(self) -> None:
        """Refuse weights with gaps: greedy firing could not write every level."""
        if not self.weights or any(not isinstance(w, int) or w < 1 for w in self.weights):
            raise ValueError(f"weights must be whole numbers of at least 1, got {list(self.weights)}")
        descending = sorted(self.weights, reverse=True)
        rest = sum(descending)
        for weight in descending:
            rest -= weight
            if weight > 1 + rest:
                raise ValueError(
                    f"the weights {list(self.weights)} leave gaps: {weight} is more than 1 plus all smaller"
                    f" ones, {1 + rest}, so some levels could not be written"
                )
        if self.most_spikes is not None and self.most_spikes < 1:
            raise ValueError(f"most_spikes must be at least 1, got {self.most_spikes}")

    @classmethod
    def grouped(
        cls,
        groups: int = 2,
        steps: int = 2,
        order: Literal["descending", "interleaved"] = "descending",
        most_spikes: int | None = None,
    ) -> ExpGCode:
        """G groups of n steps, weights ``2 ** (G - 1)`` to 1.

        >>> ExpGCode.grouped(2, 2).weights, ExpGCode.grouped(2, 2, "interleaved").weights
        ((2, 2, 1, 1), (2, 1, 2, 1))

        Args:
            groups: G; 1 is a rate code (QCFS with L = T).
            steps: n of each group; 1 is a binary code.
            order: groups one after the other, or their weights in repeated cycles.
            most_spikes: see the class.
        """
        if groups < 1 or steps < 1:
            raise ValueError(f"groups and steps must be at least 1, got {groups} and {steps}")
        weights = [2 ** (groups - 1 - g) for g in range(groups)]
        if order == "descending":
            return cls(tuple(w for w in weights for _ in range(steps)), most_spikes)
        if order == "interleaved":
            return cls(tuple(weights * steps), most_spikes)
        raise ValueError(f"order must be 'descending' or 'interleaved', got {order!r}")

    @property
    def time_steps(self) -> int:
        """T, the number of weights."""
        return len(self.weights)

    def spike_train(self, level: int) -> tuple[int, ...]:
        """The greedy spike train of a level, clipped to 0 ... L; largest weights are served first."""
        bits = [0] * self.time_steps
        for t in self.firing_order():
            if level >= self.weights[t]:
                bits[t] = 1
                level -= self.weights[t]
        return tuple(bits)

    def firing_order(self) -> list[int]:
        """Steps by weight, largest first; of equals the earlier."""
        return sorted(range(self.time_steps), key=lambda t: -self.weights[t])

    def codebook(self) -> tuple[int, ...]:
        """The levels in use, rising: all of 0 ... sum(weights), or those that few enough spikes write."""
        most = self.most_spikes or self.time_steps
        return tuple(n for n in range(sum(self.weights) + 1) if sum(self.spike_train(n)) <= most)

    @property
    def levels(self) -> int:
        """L, the highest level."""
        return self.codebook()[-1]


class _Levels(torch.autograd.Function):
    """The level of a potential; straight through where the code reaches."""

    @staticmethod
    def forward(x: Tensor, step: Tensor, book: tuple[int, ...]) -> Tensor:
        return nearest_level(x / step, book)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, tuple[int, ...]], output: Tensor) -> None:
        x, step, ctx.book = inputs
        ctx.save_for_backward(x, step)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, step = ctx.saved_tensors
        ratio = x / step
        inside = (ratio >= -0.5) & (ratio < ctx.book[-1] + 0.5)
        through = grads[0] * inside
        return through / step, -(through * ratio).sum() / step, None


def nearest_level(ratio: Tensor, book: tuple[int, ...]) -> Tensor:
    """The level next to ``x / s``: ``clip(floor(x / s + 1/2), 0, L)``, or the nearest of a sparser codebook.

    This decision is made here alone, for the quantised and for the spiking network. Ties go up, between
    levels that are not neighbours down.
    """
    top = book[-1]
    if len(book) == top + 1:
        n = torch.floor(ratio + 0.5)
        return torch.where(n > top, top, torch.where(n < 0, 0.0, n)).to(ratio.dtype)
    values = torch.tensor(book, dtype=ratio.dtype, device=ratio.device)
    middles = (values[1:] + values[:-1]) / 2
    return values[torch.bucketize(ratio, middles)]


class _ExpG(nn.Module):
    """What both forms share: the code and the step ``s``, which the first training batch sets."""

    step_size: nn.Parameter  # 0 until it is set; then taken for 1

    def own(self, code: ExpGCode) -> None:
        """Set code and step; a method, because the two forms have different bases."""
        self.code = code
        self.book = code.codebook()
        self.step_size = nn.Parameter(torch.zeros(()))

    def known_step(self) -> Tensor:
        """The step size ``s``; 1 until it is set."""
        return torch.where(self.step_size > 0, self.step_size, torch.ones_like(self.step_size))

    @override
    def extra_repr(self) -> str:
        cap = "" if self.code.most_spikes is None else f", most_spikes={self.code.most_spikes}"
        return f"weights={list(self.code.weights)}{cap}"


class ExpGQuant(_ExpG):
    """The training form of `ExpGIF`: one pass without time axis, whatever T.

    ``n = clip(floor(x / s + 1/2), 0, L)``, and the layer behind sees ``s n``. With ``a = s n`` the gradients
    are ``da/dx = 1`` inside the range and 0 outside, ``da/ds = n - x / s`` inside, L above and 0 below, the
    latter times ``1 / sqrt(numel L)`` (as LSQ, arXiv 1902.08153, scales it). The first training batch
    sets ``s = 2 mean |x| / sqrt(L)``, mean over the ranks of a distributed run.

    Args:
        code: weights and levels.
    """

    def __init__(self, code: ExpGCode) -> None:
        super().__init__()
        self.own(code)

    def forward(self, x: Tensor) -> Tensor:
        """Potentials ``[B, ...]`` -> levels ``[B, ...]``, whole numbers of the dtype of ``x``."""
        wide = x if x.dtype is torch.float64 else x.float()
        if self.training:
            self.set_step(wide)
        n: Tensor = _Levels.apply(wide, self.scale(wide), self.book)
        return n.to(x.dtype)

    @torch.no_grad()
    def set_step(self, x: Tensor) -> None:
        """Set ``s`` from a batch, if none has."""
        start = mean_over_ranks(2.0 * x.abs().mean() / math.sqrt(self.book[-1])).to(self.step_size.dtype)
        self.step_size.copy_(torch.where(self.step_size > 0, self.step_size, start))

    def scale(self, x: Tensor) -> Tensor:
        """``s``; in training, its gradient is scaled for tensors like ``x``."""
        step = self.known_step().to(x.dtype)
        if not self.training:
            return step
        factor = 1.0 / math.sqrt(x.numel() * self.book[-1])
        return step.detach() + (step - step.detach()) * factor

    def weigh(self, layer: Callable[[Tensor], Tensor], levels: Tensor) -> Tensor:
        """``s * layer(n)`` for a layer without bias: what it makes of the values ``s n``."""
        y = layer(levels)
        return y * self.scale(levels).to(y.dtype)


class ExpGIF(_ExpG, Neuron):
    """The spiking form: charges over a whole window, then fires for T steps.

    With the potential ``v = x + s / 2`` behind the window, for t by falling weight::

        o_t = [v >= s omega_t],   v <- v - s omega_t o_t

    which is the greedy code of the level; the firing is done on whole numbers. A layer waits for the whole
    window of the one before, so a sequence cannot come in chunks: throughput is one sample in T steps, the
    first answer comes after depth times T.

    Args:
        code: weights and levels.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("step_size",)

    def __init__(self, code: ExpGCode) -> None:
        Neuron.__init__(self)
        self.own(code)
        self.time_steps = code.time_steps

    @property
    def causal(self) -> bool:
        """False: the first spike waits for the last input."""
        return False

    def forward(self, x: Tensor) -> Tensor:
        """Potentials ``[B, ...]`` -> spikes ``[T, B, ...]``."""
        wide = x if x.dtype is torch.float64 else x.float()
        n = nearest_level(wide / self.known_step().to(wide.dtype), self.book)
        spikes: list[Tensor] = [n] * self.code.time_steps
        for t in self.code.firing_order():
            weight = self.code.weights[t]
            spikes[t] = (n >= weight).to(x.dtype)
            n = n - weight * spikes[t].to(n.dtype)
        return torch.stack(spikes)

    def weigh(self, layer: Callable[[Tensor], Tensor], spikes: Tensor) -> Tensor:
        """``s * sum_t omega_t layer(o_t)`` for a layer without bias; ``[T, B, ...]`` -> ``[B, ...]``."""
        T, B = spikes.shape[:2]
        y = layer(spikes.flatten(0, 1))
        y = y.reshape(T, B, *y.shape[1:])
        weights = torch.tensor(self.code.weights, dtype=y.dtype, device=y.device)
        # shifts and additions of the membrane: elementwise, so that no product of matrices is counted
        total = (y * weights.view(-1, *(1,) * (y.dim() - 1))).sum(dim=0)
        return total * self.known_step().to(y.dtype)

    @override
    def extra_repr(self) -> str:
        return _ExpG.extra_repr(self)
