"""Batch norm, neuron and pooling in one pass over memory, where nobody needs what lies between.

The modules stay what they are: parameters, buffers, keys and results are theirs. `norm_fire` asks whether
anybody could see the norm's output or the spikes before the pooling (a hook, a compiler, an exporter, a
functional transform), and then calls one after the other. Of half-precision numbers the norm's output is not
rounded on the way.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from spiking.budget import require_memory
from spiking.kernels.operands import ORDINARY
from spiking.layers import fold_time, norm_repeated
from spiking.neurons.base import Neuron, Temporal

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # themselves, no subclasses: these may do more
STORED = (torch.float32, torch.bfloat16, torch.float16)  # norms themselves have float32, as under autocast
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def norm_fire(
    norm: nn.Module, neuron: nn.Module, x: Tensor, repeats: int = 1, pool: nn.Module | None = None
) -> Tensor:
    """``pool(neuron(norm(x)))``: spikes of a neuron behind a batch norm over T, B and the map.

    All run as one kernel, which reads ``x`` once for the statistics and once for the spikes, and keeps
    nothing but ``x`` for the way back. It equals the modules up to rounding; wherever something else than
    what leaves is wanted, the modules run. Poolings that the kernel does itself are average and largest of
    2 x 2 places of maps with even sides, on CPUs of channels-last ones; then spikes are never written.

    Args:
        norm: ``nn.BatchNorm1d``, ``2d``, ``3d``, or whatever `spiking.layers.norm_repeated` takes.
        neuron: ``[T, B, C, ...]`` -> ``[T, B, C, ...]``.
        x: ``[T', B, C, ...]``.
        repeats: how many equal steps each of ``x`` stands for. Then x is one step, T' = 1, and T = repeats.
        pool: ``[N, C, H, W]`` -> ``[N, C, H', W']`` on the spikes of all steps, or nothing.

    Returns:
        ``[T, B, C, ...]``, T = T' * repeats.

    Raises:
        ValueError: x repeats and has several steps.
    """
    return norm_fire_folded(norm, neuron, x.flatten(0, 1), x.shape[0], repeats, pool)


def norm_fire_folded(
    norm: nn.Module,
    neuron: nn.Module,
    x: Tensor,
    steps: int,
    repeats: int = 1,
    pool: nn.Module | None = None,
) -> Tensor:
    """`norm_fire` of what a convolution gives, ``[T' * B, C, ...]``.

    Where the two modules run, nothing stands between convolution and norm, so that exporters and
    compilers fold one into the other.

    Args:
        norm: as in `norm_fire`.
        neuron: as in `norm_fire`.
        x: ``[T' * B, C, ...]``.
        steps: T'.
        repeats: as in `norm_fire`.
        pool: as in `norm_fire`.

    Returns:
        ``[T, B, C, ...]``, T = T' * repeats.

    Raises:
        ValueError: x repeats and has several steps.
    """
    if repeats > 1 and steps != 1:
        raise ValueError(f"only a single step repeats, got {steps} steps and repeats = {repeats}")
    if repeats > 1:
        require_memory(
            f"the first layer's output over {repeats} time steps, {tuple(x.shape)} a step,",
            repeats * x.numel() * x.element_size(),
            x.device,
            "use fewer time_steps or a smaller batch",
        )
    if _may_be_one(norm, neuron, x):
        split = _split(x, steps)
        wide = split.expand(repeats, *split.shape[1:]) if repeats > 1 else split
        kernel = cast("Any", neuron).kernel(wide)
        fused = None if kernel is None else _fused(cast("Any", norm), split, wide, kernel, pool)
        if fused is not None:
            return fused
    y = _split(norm_repeated(norm, x, repeats), steps)
    out: Tensor = neuron(y.expand(repeats, *y.shape[1:]) if repeats > 1 else y)
    return out if pool is None else fold_time(pool, out)


def _split(x: Tensor, steps: int) -> Tensor:
    return x.reshape(steps, x.shape[0] // steps if steps else 0, *x.shape[1:])


def _may_be_one(norm: nn.Module, neuron: nn.Module, x: Tensor) -> bool:
    """Whether nothing but the spikes is asked for, of modules and numbers that kernels know."""
    if torch.compiler.is_compiling() or type(x) not in ORDINARY:
        return False
    if x.device.type not in ("cpu", "cuda") or x.dtype not in STORED:
        return False
    if (
        type(norm) not in NORMS
        or not isinstance(neuron, Neuron)
        or not _has_kernel(cast("Any", type(neuron)))
    ):
        return False
    if watched(norm) or watched(neuron) or neuron.stream is not None or _transformed():
        return False
    tensors = (x, *norm._parameters.values(), *norm._buffers.values())
    if not all(t is None or type(t) in ORDINARY for t in tensors):
        return False
    floats = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    if any(t is not None and (t.dtype is not torch.float32 or t.device != x.device) for t in floats):
        return False  # of another device the norm itself says so; a kernel would read a foreign address
    return bool(x.dim() > 1 and norm.num_features == x.shape[1])


def _known(pool: nn.Module) -> str | None:
    """``"avg"`` or ``"max"`` where that of 2 x 2 places is all that ``pool`` does."""
    if type(pool) is nn.AvgPool2d:
        kind, plain = "avg", pool.divisor_override is None
    elif type(pool) is nn.MaxPool2d:
        kind, plain = "max", not pool.return_indices and pool.dilation in (1, (1, 1))
    else:
        return None
    sizes = ((pool.kernel_size, 2), (pool.stride, 2), (pool.padding, 0))
    plain = plain and all(given in (size, (size, size)) for given, size in sizes)
    return kind if plain and not watched(pool) else None


@lru_cache(maxsize=256)
def _has_kernel(cls: type[Neuron]) -> bool:
    """Whether the class that says how neurons run also says by which kernel, and how they are called."""
    runs = next(base for base in cls.__mro__ if "run" in base.__dict__)
    return "kernel" in runs.__dict__ and cls.forward is Temporal.forward


def watched(module: nn.Module) -> bool:
    """Whether a call of the module does more than its ``forward``."""
    if "forward" in module.__dict__ or module._compiled_call_impl is not None:
        return True
    return any(getattr(module, name) for name in HOOKS)


def _transformed() -> bool:
    """Whether a tracer, a mode or a transform stands between this thread and plain operations."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state()
        or nn.modules.module._has_any_global_hook()
    )


def _fused(norm: Any, x: Tensor, wide: Tensor, kernel: Any, pool: nn.Module | None) -> Tensor | None:
    """All as one; None where the numbers lie in memory as no kernel takes them."""
    from spiking.kernels import normed  # loads the compiler, so not before it is wanted

    operands, launch = kernel
    view = normed.View.of(x[0])
    if view is None or not normed.covers(launch, x) or (len(x) > 1 and x.stride(0) != view.numbers):
        return None
    kind = None if pool is None else _known(pool)
    pooling = kind if kind and normed.pools(launch, x, view) else None
    moving = norm.training or norm.running_mean is None
    if moving:
        if view.per_channel * len(x) < 2:
            return None  # PyTorch's error says it best
        with torch.no_grad():
            mean, var = normed.statistics(launch, x.detach(), view)
            if norm.training and norm.track_running_stats:
                _move(norm, mean, var, view.per_channel * len(wide))
            mean, invstd = mean.float(), (var + norm.eps).rsqrt().float()
    else:
        with torch.no_grad():
            mean, invstd = norm.running_mean.clone(), (norm.running_var + norm.eps).sqrt().reciprocal()
    setting = normed.Setting(launch, view, len(wide), moving, pooling)
    out = normed.fire(x, norm.weight, norm.bias, operands, mean, invstd, setting)
    return out if pool is None or pooling else fold_time(pool, out)


def _move(norm: Any, mean: Tensor, var: Tensor, count: int) -> None:
    """Moves the running statistics as PyTorch does; ``count`` numbers a channel."""
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    momentum = norm.momentum
    if momentum is None:  # the mean of all batches so far
        momentum = 1.0 / float(norm.num_batches_tracked)
    for running, now in ((norm.running_mean, mean), (norm.running_var, var * (count / (count - 1)))):
        running.copy_(running.double().lerp_(now, momentum))
