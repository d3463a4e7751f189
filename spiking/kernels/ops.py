"""The fused neuron as one differentiable function of tensors, and as custom operators for compilers.

There are two ways in, over the same kernels:

* `fulgurite::neuron` and `fulgurite::neuron_backward`, custom operators with shapes for tracing and a
  registered backward: what ``torch.compile`` and every tracer sees, one node each. They take plain types
  alone, so the rule goes in as text, which is written and read here and nowhere else;
* `spiking.kernels.eager` in eager mode, which is faster.
"""

from __future__ import annotations

import ast
import dataclasses
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spiking import surrogate
from spiking.kernels import eager, layout, passes
from spiking.kernels.launch import Launch
from spiking.kernels.operands import NOTHING, ORDINARY, Operands
from spiking.kernels.rules import multi_threshold, neurons, written
from spiking.kernels.rules.base import Family
from spiking.kernels.rules.neurons import LMHT

if TYPE_CHECKING:
    from collections.abc import Sequence

CLASSES: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        neurons.Leaky,
        neurons.Complementary,
        neurons.Dynamic,
        neurons.Gated,
        neurons.Compartments,
        neurons.LMHT,
        multi_threshold.RateCoded,
        multi_threshold.Tracking,
        written.Written,
        *surrogate.SURROGATES.values(),
    )
}


def neuron(x: Tensor, operands: Operands, launch: Launch) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Runs a rule over ``x [T, ...]``.

    Args:
        x: currents.
        operands: the other tensors.
        launch: which kernel, and its numbers.

    Returns:
        Spikes ``[T, ...]`` in the dtype of ``x`` and the last states ``[...]`` in float32.
    """
    if _watched() or not _ordinary(x, operands):
        found = _observed(x, operands, launch)
    elif not (torch.is_grad_enabled() and _differentiated(x, operands)):
        found = passes.forward(x, operands, launch)
    elif operands is NOTHING:
        found = eager.Alone.apply(x, launch)
    else:
        found = eager.Eager.apply(x, *operands, launch)
    return found[0], tuple(found[1:])


def _watched() -> bool:
    """Whether a compiler, a mode or a transform stands between this thread and plain operations."""
    return bool(
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
    )


def _ordinary(x: Tensor, operands: Operands) -> bool:
    if type(x) not in ORDINARY:
        return False
    return operands is NOTHING or all(t is None or type(t) in ORDINARY for t in operands)


def _differentiated(x: Tensor, operands: Operands) -> bool:
    if x.requires_grad or operands is NOTHING:
        return x.requires_grad
    return any(t is not None and t.requires_grad for t in operands)


def _observed(x: Tensor, operands: Operands, launch: Launch) -> Sequence[Tensor]:
    """As one node for whoever looks on: ``torch.func`` takes its own form, all others the operator."""
    others = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack()
    if not others and _ordinary(x, operands):
        found: tuple[Tensor, ...] = eager.Neuron.apply(x, *operands, launch)
        return found
    rule, engine, params = launch.rule, launch.engine, _listed(launch)
    through: list[Tensor] = neuron_op(x, *operands, serialise(rule), engine, params, launch.keep)
    return through


# ---------------------------------------------------------------- rules as text


def serialise(value: Any) -> str:
    """A rule as the Python expression that makes it.

    Text, because programs that hold it are cached on disk and read by other processes. Compilers trace this
    function, so it is as plain as can be.
    """
    if not dataclasses.is_dataclass(value):
        return f"{value!r}"  # not repr(): where numbers are symbols, compilers take only this for a constant
    inside = [f"{field.name}={serialise(getattr(value, field.name))}" for field in dataclasses.fields(value)]
    return f"{type(value).__name__}({', '.join(inside)})"


@lru_cache(maxsize=1024)
def deserialise(text: str) -> Family:
    """The rule that `serialise` wrote."""
    rule = _read(ast.parse(text, mode="eval").body)
    assert isinstance(rule, Family)
    return rule


def _read(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return CLASSES[node.func.id](**{str(word.arg): _read(word.value) for word in node.keywords})
    return ast.literal_eval(node)


def _listed(launch: Launch) -> list[float]:
    """Parameters in the order of `Family.names`; never empty, which operators take for a list of tensors."""
    return [launch.params.get(name, 0.0) for name in launch.rule.names] or [0.0]


@lru_cache(maxsize=1024)  # what is ready for a launch is looked up by its identity
def _launch(rule: str, engine: str, params: tuple[float, ...], keep: bool) -> Launch:
    what = deserialise(rule)
    return Launch(what, engine, keep, dict(zip(what.names, params, strict=False)))


# ---------------------------------------------------------------- compiled and traced programs


@torch.library.custom_op("fulgurite::neuron", mutates_args=(), device_types=("cpu", "cuda"))
def neuron_op(
    x: Tensor,
    v: Tensor | None,
    m: Tensor | None,
    rate: Tensor | None,
    k: Tensor | None,
    table: Tensor | None,
    coefficients: Tensor | None,
    conductance: Tensor | None,
    rule: str,
    engine: str,
    params: list[float],
    keep: bool,
) -> list[Tensor]:
    """Spikes and, if wanted, the last states."""
    operands = Operands(v, m, rate, k, table, coefficients, conductance)
    return list(passes.forward(x, operands, _launch(rule, engine, tuple(params), keep)))


@neuron_op.register_fake
def _(x: Tensor, *rest: Any) -> list[Tensor]:
    *_, rule, _engine, _params, keep = rest
    family = deserialise(rule)
    x = layout.prepare(x, family.per_neuron)
    states = [layout.like(x, False, torch.float32) for _ in range(family.n_states if keep else 0)]
    steps = family.steps if isinstance(family, LMHT) else True
    return [layout.like(x, steps, x.dtype), *states]


@torch.library.custom_op("fulgurite::neuron_backward", mutates_args=(), device_types=("cpu", "cuda"))
def neuron_backward_op(
    x: Tensor,
    v: Tensor | None,
    m: Tensor | None,
    rate: Tensor | None,
    k: Tensor | None,
    table: Tensor | None,
    coefficients: Tensor | None,
    conductance: Tensor | None,
    g: Tensor | None,
    g_v: Tensor | None,
    g_m: Tensor | None,
    rule: str,
    engine: str,
    params: list[float],
) -> list[Tensor]:
    """Gradients of ``x`` and of `_differentiable` operands, those that are there, in their order."""
    operands = Operands(v, m, rate, k, table, coefficients, conductance)
    launch = _launch(rule, engine, tuple(params), False)
    return [t for t in passes.backward(x, operands, g, (g_v, g_m), launch) if t is not None]


@neuron_backward_op.register_fake
def _(x: Tensor, *rest: Any) -> list[Tensor]:
    *tensors, _g, _g_v, _g_m, rule, _engine, _params = rest
    family = deserialise(rule)
    x = layout.prepare(x, family.per_neuron)
    given = _differentiable(family, Operands(*tensors))
    states = [layout.like(x, False, state.dtype) for state in (given.v, given.m) if state is not None]
    learnt = [torch.empty_like(t) for t in given._replace(v=None, m=None) if t is not None]
    return [layout.like(x, True, x.dtype), *states, *learnt]


def _differentiable(rule: Family, operands: Operands) -> Operands:
    """The operands that have a gradient, None in the place of the others."""
    return operands if rule.learnt else Operands(v=operands.v, m=operands.m)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.rule, ctx.engine, ctx.params, _keep = inputs
    ctx.save_for_backward(*tensors)


def _derive(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    x, *tensors = ctx.saved_tensors
    g, g_v, g_m, *_ = (*grads, None, None)
    gx, *found = neuron_backward_op(x, *tensors, g, g_v, g_m, ctx.rule, ctx.engine, ctx.params)
    left = iter(found)
    given = _differentiable(deserialise(ctx.rule), Operands(*tensors))
    rule = engine = params = keep = None
    return (gx, *(None if t is None else next(left) for t in given), rule, engine, params, keep)


neuron_op.register_autograd(_derive, setup_context=_setup)
