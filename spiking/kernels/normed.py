"""A norm, the neuron behind it and a pooling of its spikes as one differentiable function.

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
from spiking.kernels.cpu.norm import gradient_
from spiking.kernels.cpu.norm import statistics as cpu_statistics
from spiking.kernels.cpu.view import View
from spiking.kernels.cpu.windows import Windows
from spiking.kernels.operands import Operands
from spiking.kernels.rules.base import Rule
from spiking.kernels.rules.pooling import in_windows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spiking.kernels.launch import Launch
    from spiking.kernels.triton import normed as triton

__all__ = ["Setting", "View", "covers", "fire", "pools", "statistics"]


@dataclass(frozen=True)
class Setting:
    """What is neither differentiated nor kept.

    Attributes:
        launch: the neuron.
        view: of one step of the numbers.
        steps: T.
        moving: whether mean and variance are those of the numbers, so that gradients flow through them.
        pooling: kind of `spiking.kernels.rules.pooling` of the spikes, or None.
    """

    launch: Launch
    view: View
    steps: int
    moving: bool
    pooling: str | None = None

    @property
    def rule(self) -> Rule:
        """The neuron's equations."""
        assert isinstance(self.launch.rule, Rule)
        return self.launch.rule

    @property
    def on_cpu(self) -> bool:
        """Whose kernels run."""
        return self.launch.engine == "cpu"

    def over(self, x: Tensor) -> cpu.Sequence:
        """The numbers as CPU kernels take them."""
        windows = Windows.of(x[0], self.view) if self.pooling else None
        pooling = None if self.pooling is None or windows is None else cpu.Pooling(self.pooling, windows)
        return cpu.Sequence(x, self.view, self.steps, pooling)

    def behind(self, operands: Operands) -> triton.Behind:
        """The neuron as Triton kernels take it."""
        from spiking.kernels.triton.normed import Behind

        return Behind(self.rule, self.launch.params, operands, self.steps, self.pooling)


def covers(launch: Launch, x: Tensor) -> bool:
    """Whether there is a kernel for a norm before this neuron, of numbers ``[T', N, C, ...]``."""
    if not isinstance(launch.rule, Rule) or not cpu.covers(launch.rule):
        return False
    if launch.engine == "cpu":
        return True
    from spiking.kernels.triton import normed as triton

    return triton.covers(x)


def pools(launch: Launch, x: Tensor, view: View) -> bool:
    """Whether that kernel can pool windows of 2 x 2."""
    return in_windows(x[0].shape) if launch.engine != "cpu" else Windows.of(x[0], view) is not None


def statistics(launch: Launch, x: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """Mean and biased variance ``[C]`` over all of ``x [T', N, C, ...]``, of which `view` shows one step."""
    if launch.engine == "cpu":
        return cpu_statistics(x, view._replace(outer=view.outer * len(x)))
    from spiking.kernels.triton import normed as triton

    return triton.statistics(x.flatten(0, 1))


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
    operands, numbers = Operands(rate=rate, k=k), _scale_and_shift(mean, invstd, weight, bias)
    if setting.on_cpu:
        return cpu.fire(setting.rule, passes.values(setting.launch, operands), setting.over(x), *numbers)
    from spiking.kernels.triton import normed as triton

    return triton.fire(setting.behind(operands), x, *numbers)


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
    operands, numbers = Operands(rate=rate, k=k), _scale_and_shift(mean, invstd, weight, bias)
    if setting.on_cpu:
        *grads, scalars = _backward_on_cpu(x, operands, numbers, mean, invstd, g, setting)
    else:
        from spiking.kernels.triton import normed as triton

        current, scalars = triton.fire_backward(setting.behind(operands), x, *numbers, g)
        folded = current.flatten(0, 1), x.flatten(0, 1)
        grads = list(triton.norm_backward(*folded, weight, mean, invstd, setting.moving))
        grads[0] = grads[0].view_as(x)
    gx, weighted, plain = grads
    return (
        gx,
        None if weight is None else weighted.to(weight.dtype),
        None if bias is None else plain.to(bias.dtype),
        passes.as_like(scalars.get("rate"), rate),
        passes.as_like(scalars.get("k"), k),
    )


def _backward_on_cpu(
    x: Tensor,
    operands: Operands,
    affine: tuple[Tensor, Tensor],
    mean: Tensor,
    invstd: Tensor,
    g: Tensor,
    setting: Setting,
) -> tuple[Tensor, Tensor, Tensor, Mapping[str, Tensor]]:
    """Gradients of x, weight and bias, and of the neuron's parameters by name."""
    scale, shift = affine
    numbers = {"scale": scale, "shift": shift, "centre": mean}
    values = passes.values(setting.launch, operands)
    back = cpu.fire_backward(setting.rule, values, setting.over(x), g, numbers)
    plain, weighted = back.sums[0], back.sums[1] * invstd  # in units of the normalised numbers
    if setting.moving:
        n = setting.view.per_channel * len(x)
        lift, slope = -scale * (plain / n), scale * invstd * (weighted / n)
    else:
        lift = slope = torch.zeros_like(scale)
    folded = setting.view._replace(outer=setting.view.outer * len(x))
    numbers = {"scale": scale, "lift": lift, "slope": slope, "centre": mean}
    return gradient_(back.current, x, folded, numbers), weighted, plain, back.scalars


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
