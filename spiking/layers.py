"""Layers without state over sequences ``[T, B, ...]``: folding, batch norm over time, spike products.

Axes: T time, B batch, C channels, H W map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from spiking.arguments import flag, integer, number

if TYPE_CHECKING:
    from collections.abc import Callable


def fold_time(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Run a stateless layer on all steps at once, ``[T, B, ...]`` -> ``[T, B, ...]``.

    The layer sees ``[T * B, ...]``, which is a view of ``x`` unless ``x`` was expanded over T; a
    channels-last fold stays channels-last. What the layer does to the axes behind B is its own affair.

    >>> fold_time(nn.Conv2d(3, 8, 3), torch.zeros(4, 2, 3, 8, 8)).shape
    torch.Size([4, 2, 8, 6, 6])

    Args:
        module: any layer or function over ``[N, ...]`` that treats the N entries alike.
        x: ``[T, B, ...]``.

    Returns:
        ``[T, B, ...]``.

    Raises:
        ValueError: ``x`` has no time and batch axis, or the layer changed the folded axis.
    """
    if x.dim() < 3:
        raise ValueError(
            f"expected [T, B, ...] with at least one axis behind B, got {x.dim()} axes {tuple(x.shape)}"
        )
    T, B = x.shape[:2]
    y = module(x.flatten(0, 1))
    if y.dim() == 0 or y.shape[0] != T * B:
        raise ValueError(
            f"{_label(module)} turned the folded axis T * B = {T} * {B} of {tuple(x.shape)} into"
            f" {tuple(y.shape)}; only layers that keep the first axis can be folded"
        )
    return y.reshape(T, B, *y.shape[1:])  # a view: only the first axis is split


class FoldTime(nn.Module):
    """`fold_time` as a module, for use in ``nn.Sequential``.

    Args:
        module: the layer, child ``module``.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, ...]`` -> ``[T, B, ...]``."""
        return fold_time(self.module, x)


def norm_repeated(norm: nn.Module, x: Tensor, repeats: int) -> Tensor:
    """Batch norm of ``x`` as if it stood there ``repeats`` times.

    Repeating data changes neither its mean nor its variance, so the outputs are those of ``norm(x)``.
    Only the running variance differs: it takes the unbiased factor n / (n - 1), and n counts the
    repeats. So a still image needs one pass instead of T, with the statistics of T.

    Args:
        norm: ``nn.BatchNorm1d``, ``2d``, ``3d``, ``nn.SyncBatchNorm``; others are simply called.
        x: ``[N, C, ...]``.
        repeats: R.

    Returns:
        ``[N, C, ...]``.
    """
    if not torch.compiler.is_compiling() and isinstance(x, Tensor) and _ambiguous(x):
        x = x.contiguous()
    moving = getattr(norm, "running_var", None)
    if repeats == 1 or moving is None or not norm.training:
        normed: Tensor = norm(x)
        return normed
    # Autograd keeps the running variance for the backward pass and refuses a later change of it, so
    # the layer moves a copy and the buffer is written afterwards.
    copy = moving.clone()
    y: Tensor = torch.func.functional_call(norm, {"running_var": copy}, (x,))
    n = x.numel() // x.shape[1] * _ranks(norm)
    factor = (n - 1) / n * (n * repeats) / (n * repeats - 1)
    momentum: Any = norm.momentum
    if momentum is None:  # cumulative average; the call has raised the count
        momentum = 1.0 / cast("Tensor", norm.num_batches_tracked).to(moving.dtype)
    with torch.no_grad():
        kept = moving * (1.0 - momentum)
        moving.copy_(torch.lerp(kept, copy, factor))
    return y


def _ambiguous(x: Tensor) -> bool:
    """Whether ``x`` is a single channels-last map that a view has left with the stride of another layout.

    PyTorch's batch norm (2.14) then mixes up two layouts, and its gradients are wrong without an error.
    """
    return x.dim() == 4 and x.shape[0] == 1 and x.stride(0) < x.numel() and not x.is_contiguous()


class TimeBatchNorm2d(nn.Module):
    """Batch norm over T, B, H and W of ``[T, B, C, H, W]``; the norm itself is the child ``bn``.

    Keys are ``bn.weight``, ``bn.bias``, ``bn.running_mean``, ``bn.running_var`` and
    ``bn.num_batches_tracked``. ``nn.SyncBatchNorm.convert_sync_batchnorm`` replaces the child.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: of the running statistics; None for a cumulative average.
        affine: whether gain and shift are learnt.
        track_running_stats: whether statistics are kept for evaluation.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        check_norm(num_features, eps, momentum)
        flag("affine", affine)
        flag("track_running_stats", track_running_stats)
        self.bn = nn.BatchNorm2d(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, x: Tensor, repeats: int = 1) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[T, B, C, H, W]``.

        Args:
            x: the input.
            repeats: how many equal steps each of ``x`` stands for; see `norm_repeated`.
        """
        _check_maps(x, self.bn.num_features, type(self).__name__)
        if repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {repeats}")
        y = norm_repeated(self.bn, x.flatten(0, 1), repeats)
        return y.reshape(*x.shape[:2], *y.shape[1:])


class TDBN(TimeBatchNorm2d):
    """Threshold-dependent batch norm, tdBN (arXiv 2011.05280).

    A `TimeBatchNorm2d` whose gain starts at ``alpha * v_threshold``, so that currents have the
    spread of the threshold. Nothing else differs, and weights are interchangeable.

    Args:
        num_features: C.
        alpha: 1 on a plain path; ``1 / sqrt(2)`` on each of two branches that are summed.
        v_threshold: of the neuron that follows.
        eps: added to the variance.
        momentum: of the running statistics.
    """

    def __init__(
        self,
        num_features: int,
        alpha: float = 1.0,
        v_threshold: float = 1.0,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
    ) -> None:
        super().__init__(num_features, eps, momentum)
        number("alpha", alpha)
        number("v_threshold", v_threshold, above=0.0)
        nn.init.constant_(self.bn.weight, alpha * v_threshold)


class TEBN(TimeBatchNorm2d):
    """Temporal effective batch norm (NeurIPS 2022): ``y[t] = BN(x)[t] * scale[t]``.

    Args:
        num_features: C.
        time_steps: T, fixed by the parameter ``scale [T]``, which starts at one.
        eps: added to the variance.
        momentum: of the running statistics.
    """

    def __init__(
        self, num_features: int, time_steps: int, eps: float = 1e-5, momentum: float | None = 0.1
    ) -> None:
        super().__init__(num_features, eps, momentum)
        self.time_steps = check_time_steps(time_steps)
        self.scale = nn.Parameter(torch.ones(time_steps))

    def forward(self, x: Tensor, repeats: int = 1) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[T, B, C, H, W]``; one step with ``repeats = T`` gives T steps."""
        if repeats > 1 and x.dim() == 5 and x.shape[0] == 1:
            _check_steps(repeats, self.time_steps, type(self).__name__)
        else:
            _check_maps(x, self.bn.num_features, type(self).__name__)
            _check_steps(x.shape[0], self.time_steps, type(self).__name__)
        y = super().forward(x, repeats)
        return y * self.scale.to(y.dtype).view(-1, 1, 1, 1, 1)


class BNTT(nn.Module):
    """Batch norm through time (Frontiers 2021): a norm of its own for every step, without shift.

    Children are ``bn_list.t``, each an ``nn.BatchNorm2d`` whose bias is absent.

    Args:
        num_features: C.
        time_steps: T, fixed by the number of norms.
        eps: added to the variance.
        momentum: of the running statistics.
    """

    def __init__(
        self, num_features: int, time_steps: int, eps: float = 1e-5, momentum: float | None = 0.1
    ) -> None:
        super().__init__()
        check_norm(num_features, eps, momentum)
        self.num_features = num_features
        self.time_steps = check_time_steps(time_steps)
        norms = [nn.BatchNorm2d(num_features, eps, momentum) for _ in range(time_steps)]
        for norm in norms:
            norm.register_parameter("bias", None)
        self.bn_list = nn.ModuleList(norms)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[T, B, C, H, W]``."""
        _check_maps(x, self.num_features, type(self).__name__)
        _check_steps(x.shape[0], self.time_steps, type(self).__name__)
        return torch.stack([norm(step) for norm, step in zip(self.bn_list, x, strict=True)])


class SpikeMatmul(nn.Module):
    """Matrix product with a spike tensor, ``a @ b``, as a module so that hooks can count it.

    Args:
        spike_operand: ``"a"`` or ``"b"``, the operand that holds spikes.
    """

    def __init__(self, spike_operand: Literal["a", "b"] = "b") -> None:
        super().__init__()
        if not isinstance(spike_operand, str) or spike_operand not in ("a", "b"):
            raise ValueError(f"spike_operand must be 'a' or 'b', got {spike_operand!r}")
        self.spike_operand = spike_operand

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """``[..., M, K] @ [..., K, N]`` -> ``[..., M, N]``."""
        return a @ b

    @override
    def extra_repr(self) -> str:
        return f"spike_operand={self.spike_operand!r}"


def mean_over_ranks(x: Tensor) -> Tensor:
    """Mean of ``x`` over the processes of a distributed run, so that every rank goes on with the same."""
    dist = torch.distributed
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return x
    x = x.clone()
    dist.all_reduce(x)
    return x / dist.get_world_size()


def _ranks(norm: nn.Module) -> int:
    """How many processes share the statistics of ``norm``."""
    if not isinstance(norm, nn.SyncBatchNorm):
        return 1
    dist = torch.distributed
    if not dist.is_available() or not dist.is_initialized():
        return 1
    return dist.get_world_size(norm.process_group)


def _label(module: object) -> str:
    return (
        type(module).__name__ if isinstance(module, nn.Module) else getattr(module, "__name__", repr(module))
    )


def check_norm(num_features: int, eps: float, momentum: float | None) -> None:
    """Raise an error that names a wrong setting of a norm."""
    integer("num_features", num_features)
    if number("eps", eps) < 0.0:
        raise ValueError(f"eps must be at least 0, got {eps!r}")
    if momentum is not None and not 0.0 <= number("momentum", momentum) <= 1.0:
        raise ValueError(f"momentum must lie in [0, 1] or be None, got {momentum!r}")


def check_time_steps(time_steps: int) -> int:
    """T as a positive integer, or an error that names it."""
    return integer("time_steps", time_steps)


def _check_maps(x: Tensor, channels: int, label: str) -> None:
    if x.dim() != 5:
        hint = "; add the time axis with x.unsqueeze(0)" if x.dim() == 4 else ""
        raise ValueError(f"{label} expected [T, B, C, H, W], got {x.dim()} axes {tuple(x.shape)}{hint}")
    if x.shape[2] != channels:
        raise ValueError(
            f"{label} was built for C = {channels}, got C = {x.shape[2]}"
            f" in [T, B, C, H, W] = {tuple(x.shape)}"
        )


def _check_steps(got: int, built: int, label: str) -> None:
    if got != built:
        raise ValueError(f"{label} was built for T = {built} steps, got T = {got}; its parameters fix T")
