"""A norm, the neuron behind it and a pooling of its spikes as one differentiable function on CPU kernels.

Kept for the way back are the numbers that the norm was given, and a few for each channel: normalised currents
and potentials are computed again from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spiking.kernels import passes
from spiking.kernels.cpu import normed as cpu
from spiking.kernels.cpu.norm import gradient_, statistics
from spiking.kernels.cpu.normed import Pooling
from spiking.kernels.cpu.view import View
from spiking.kernels.cpu.windows import Windows
from spiking.kernels.operands import Operands
from spiking.kernels.rules.base import Rule

if TYPE_CHECKING:
    from spiking.kernels.launch import Launch

__all__ = ["Pooling", "Setting", "View", "Windows", "covers", "fire", "statistics"]


@dataclass(frozen=True)
class Setting:
    """What is neither differentiated nor kept.

    Attributes:
        launch: the neuron.
        view: of one step of the numbers.
        steps: T.
        moving: whether mean and variance are those of the numbers, so that gradients flow through them.
        pooling: of the spikes.
    """

    launch: Launch
    view: View
    steps: int
    moving: bool
    pooling: Pooling | None = None

    def over(self, x: Tensor) -> cpu.Sequence:
        """The numbers as kernels take them."""
        return cpu.Sequence(x, self.view, self.steps, self.pooling)


def covers(launch: Launch) -> bool:
    """Whether there is a kernel for a norm before this neuron."""
    return launch.engine == "cpu" and isinstance(launch.rule, Rule) and cpu.covers(launch.rule)


def _scale_and_shift(
    mean: Tensor, invstd: Tensor, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The norm as ``scale * x + shift``, rounded as PyTorch rounds it."""
    scale = invstd if weight is None else invstd * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return scale, shift


def fire(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    operands: Operands,
    mean: Tensor,
    invstd: Tensor,
    setting: Setting,
) -> Tensor:
    """Spikes ``[T, N, C, ...]`` of ``x [T', N, C, ...]``, T' = T or 1; or ``[T, N, C, H / 2, W / 2]`` pooled.

    Args:
        x: numbers.
        weight: gain of the norm ``[C]``, float32, 1 if None.
        bias: shift of the norm ``[C]``, float32, 0 if None.
        operands: learnt parameters of the neuron.
        mean: ``[C]``, float32.
        invstd: reciprocal of the deviation ``[C]``, float32.
        setting: the rest.
    """
    given = (x, weight, bias, operands.rate, operands.k, mean, invstd)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given[:5]):
        spikes: Tensor = _Fire.apply(*given, setting)
        return spikes
    return _forward(*given, setting)


def _forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    rate: Tensor | None,
    k: Tensor | None,
    mean: Tensor,
    invstd: Tensor,
    setting: Setting,
) -> Tensor:
    launch = setting.launch
    assert isinstance(launch.rule, Rule)
    values = passes.values(launch, Operands(rate=rate, k=k))
    return cpu.fire(launch.rule, values, setting.over(x), *_scale_and_shift(mean, invstd, weight, bias))


def _backward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    rate: Tensor | None,
    k: Tensor | None,
    mean: Tensor,
    invstd: Tensor,
    g: Tensor,
    setting: Setting,
) -> tuple[Tensor | None, ...]:
    """Gradients of x, weight, bias, rate and k."""
    launch = setting.launch
    assert isinstance(launch.rule, Rule)
    scale, shift = _scale_and_shift(mean, invstd, weight, bias)
    values = passes.values(launch, Operands(rate=rate, k=k))
    numbers = {"scale": scale, "shift": shift, "centre": mean}
    back = cpu.fire_backward(launch.rule, values, setting.over(x), g, numbers)
    plain, weighted = back.sums[0], back.sums[1] * invstd  # in units of the normalised numbers
    if setting.moving:
        n = setting.view.per_channel * len(x)
        lift, slope = -scale * (plain / n), scale * invstd * (weighted / n)
    else:
        lift = slope = torch.zeros_like(scale)
    folded = setting.view._replace(outer=setting.view.outer * len(x))
    numbers = {"scale": scale, "lift": lift, "slope": slope, "centre": mean}
    gx = gradient_(back.current, x, folded, numbers)
    return (
        gx,
        None if weight is None else weighted.to(weight.dtype),
        None if bias is None else plain.to(bias.dtype),
        passes.as_like(back.scalars.get("rate"), rate),
        passes.as_like(back.scalars.get("k"), k),
    )


class _Fire(torch.autograd.Function):
    """`fire` for eager mode."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        """Spikes; keeps the numbers and what belongs to channels."""
        *tensors, ctx.setting = given
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        return _forward(*given)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Runs the kernels of the way back; a second derivative is refused when it is taken."""
        (g,) = grads
        if g is None:
            return (None,) * 8
        run: Any = _FireBackward.apply if torch.is_grad_enabled() else _backward
        return (*run(*ctx.saved_tensors, g, ctx.setting), None, None, None)


class _FireBackward(torch.autograd.Function):
    """The way back where a graph of it is asked for: computes, but has no derivative."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor | None, ...]:
        """Gradients, one by one."""
        return _backward(*given)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Always an error."""
        raise RuntimeError("fused neurons have no second derivative; pass backend='reference' to get one")
