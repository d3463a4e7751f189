"""The two passes of a launch on its engine; gradients are put in the places of what they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from spiking.kernels.cpu import passes as cpu
from spiking.kernels.cpu import small
from spiking.kernels.launch import Gradients
from spiking.kernels.operands import NOTHING, Operands
from spiking.kernels.rules.base import Rule
from spiking.kernels.rules.neurons import LMHT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from spiking.kernels.launch import Launch


def forward(x: Tensor, operands: Operands, launch: Launch) -> tuple[Tensor, ...]:
    """Spikes ``[T, ...]`` in the dtype of ``x`` and, if wanted, the last states ``[...]`` in float32."""
    if launch.engine == "cpu" and (found := small.forward(launch, x, operands.v, operands.m)) is not None:
        return found
    rule = launch.rule
    if isinstance(rule, LMHT):
        assert operands.table is not None
        return (_mixing(launch).forward(rule, x, operands.table),)
    assert isinstance(rule, Rule)
    if launch.engine == "triton":
        from spiking.kernels.triton import passes as triton

        spikes, ends = triton.forward(rule, launch.params, x, operands, launch.keep)
        return (spikes, *ends)
    spikes, ends = cpu.forward(rule, values(launch, operands), x, operands, launch.keep)
    return (spikes, *ends)


def current_gradient(
    x: Tensor, g: Tensor, g_ends: tuple[Tensor | None, ...], launch: Launch
) -> Tensor | None:
    """That of the currents, for a neuron without operands; arguments as in `backward`."""
    found = small.backward(launch, x, g, g_ends) if launch.engine == "cpu" else None
    return backward(x, NOTHING, g, g_ends, launch).x if found is None else found[0]


def backward(
    x: Tensor, operands: Operands, g: Tensor | None, g_ends: tuple[Tensor | None, ...], launch: Launch
) -> Gradients:
    """Gradients by those of the spikes ``g [T, ...]`` and of the last states ``g_ends``; None is zero."""
    if launch.engine == "cpu":
        quick = small.backward(launch, x, g, g_ends, operands.v, operands.m)
        if quick is not None:
            gx, gv, gm = quick
            return Gradients(gx, as_like(gv, operands.v), as_like(gm, operands.m))
    rule = launch.rule
    if isinstance(rule, LMHT):
        table = operands.table
        assert table is not None
        gx, g_table = _mixing(launch).backward(rule, x, table, g)
        return Gradients(gx, table=g_table.to(table.dtype))
    assert isinstance(rule, Rule)
    coefficients = conductance = None
    if launch.engine == "triton":
        from spiking.kernels.triton import passes as triton

        gx, (gv, gm), scalars = triton.backward(rule, launch.params, x, operands, g, g_ends)
    else:
        gx, (gv, gm), found = cpu.backward(rule, values(launch, operands), x, operands, g, g_ends)
        scalars, coefficients, conductance = found.scalars, found.coefficients, found.conductance
    if operands is NOTHING:
        return Gradients(gx)
    return Gradients(
        gx,
        v=as_like(gv, operands.v),
        m=as_like(gm, operands.m),
        rate=as_like(scalars.get("rate"), operands.rate),
        k=as_like(scalars.get("k"), operands.k),
        table=_table(rule, scalars, operands.table),
        coefficients=coefficients,
        conductance=conductance,
    )


def _mixing(launch: Launch) -> Any:
    """The module with the two passes of LM-HT."""
    if launch.engine == "triton":
        from spiking.kernels.triton import lmht as triton_mixing

        return triton_mixing
    from spiking.kernels.cpu import lmht as cpu_mixing

    return cpu_mixing


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
    zero = torch.zeros((), dtype=torch.float64, device=table.device)
    grads = [scalars.get(name, zero) for name in rule.tabled]
    return torch.stack(grads).to(table.dtype)
