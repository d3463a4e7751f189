"""The two passes of a launch on its engine; gradients are put in the places of what they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from spiking.kernels.cpu import passes as cpu
from spiking.kernels.launch import Gradients
from spiking.kernels.operands import NOTHING, Operands
from spiking.kernels.rules.base import Rule
from spiking.kernels.rules.neurons import LMHT, Dynamic, Leaky

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from spiking.kernels.launch import Launch


def forward(x: Tensor, operands: Operands, launch: Launch) -> tuple[Tensor, ...]:
    """Spikes ``[T, ...]`` in the dtype of ``x`` and, if wanted, the last states ``[...]`` in float32."""
    rule = launch.rule
    if isinstance(rule, LMHT):
        assert operands.table is not None
        return (_mixing(launch).forward(rule, x, operands.table),)
    if launch.engine == "triton" and isinstance(rule, Dynamic):
        from spiking.kernels.triton import dynamic

        spikes, ends = dynamic.forward(launch.params, x, operands.v, operands.m, launch.keep)
        return (spikes, *ends)
    if launch.engine == "triton":
        from spiking.kernels.triton import leaky as triton

        spikes, ends = triton.forward(_leaky(rule), launch.params, x, operands.v, operands.rate, launch.keep)
        return (spikes, *ends)
    assert isinstance(rule, Rule)
    spikes, ends = cpu.forward(rule, values(launch, operands), x, operands, launch.keep)
    return (spikes, *ends)


def backward(
    x: Tensor, operands: Operands, g: Tensor | None, g_ends: tuple[Tensor | None, ...], launch: Launch
) -> Gradients:
    """Gradients by those of the spikes ``g [T, ...]`` and of the last states ``g_ends``; None is zero."""
    rule = launch.rule
    if isinstance(rule, LMHT):
        table = operands.table
        assert table is not None
        gx, g_table = _mixing(launch).backward(rule, x, table, g)
        return Gradients(gx, table=g_table.to(table.dtype))
    if launch.engine == "triton" and isinstance(rule, Dynamic):
        from spiking.kernels.triton import dynamic

        given = (operands.v, operands.m)
        gx, gv, gm = dynamic.backward(rule, launch.params, x, *given, g, g_ends)
        return Gradients(gx, v=as_like(gv, operands.v), m=as_like(gm, operands.m))
    if launch.engine == "triton":
        return _triton_backward(_leaky(rule), x, operands, g, g_ends, launch)
    assert isinstance(rule, Rule)
    gx, (gv, gm), found = cpu.backward(rule, values(launch, operands), x, operands, g, g_ends)
    if operands is NOTHING:
        return Gradients(gx)
    scalars = found.scalars
    return Gradients(
        gx,
        v=as_like(gv, operands.v),
        m=as_like(gm, operands.m),
        rate=as_like(scalars.get("rate"), operands.rate),
        k=as_like(scalars.get("k"), operands.k),
        table=_table(rule, scalars, operands.table),
        coefficients=found.coefficients,
        conductance=found.conductance,
    )


def _triton_backward(
    rule: Leaky,
    x: Tensor,
    operands: Operands,
    g: Tensor | None,
    g_ends: tuple[Tensor | None, ...],
    launch: Launch,
) -> Gradients:
    from spiking.kernels.triton import leaky as triton

    g_end = next(iter(g_ends), None)
    gx, gv, g_rate = triton.backward(rule, launch.params, x, operands.v, operands.rate, g, g_end)
    return Gradients(gx, v=as_like(gv, operands.v), rate=as_like(g_rate, operands.rate))


def _mixing(launch: Launch) -> Any:
    """The module with the two passes of LM-HT."""
    if launch.engine == "triton":
        from spiking.kernels.triton import lmht as triton_mixing

        return triton_mixing
    from spiking.kernels.cpu import lmht as cpu_mixing

    return cpu_mixing


def _leaky(rule: object) -> Leaky:
    assert isinstance(rule, Leaky)  # `kernels.refusal` lets no other pass
    return rule


def values(launch: Launch, operands: Operands) -> Mapping[str, float]:
    """Values of the scalar parameters, learnt ones and those of a table included."""
    if operands is NOTHING:
        return launch.params
    found = dict(launch.params)
    if operands.rate is not None:
        found["rate"] = operands.rate.item()
    if operands.k is not None:
        found["k"] = operands.k.item()
    if operands.table is not None:
        found.update(zip(launch.rule.tabled, operands.table.tolist(), strict=True))
    return found


def as_like(grad: Tensor | None, like: Tensor | None) -> Tensor | None:
    """A gradient in dtype and shape of what it belongs to; None where that is not there."""
    return None if grad is None or like is None else grad.to(like.dtype).reshape(like.shape)


def _table(rule: Rule, scalars: Mapping[str, Tensor], table: Tensor | None) -> Tensor | None:
    """Gradients of a table, 0 for those of its numbers that are not learnt."""
    if table is None or not rule.learnt:
        return None
    grads = [scalars.get(name, torch.zeros((), dtype=torch.float64)) for name in rule.tabled]
    return torch.stack(grads).to(table.dtype)
