"""The two passes of a rule on CUDA tensors; see `spiking.kernels.cpu.passes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
from torch import Tensor

from spiking.kernels.layout import in_order_of, like, prepare
from spiking.kernels.triton.runtime import BLOCK, arriving, options
from spiking.kernels.triton.writer import kernels, learnt_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spiking.kernels.operands import Operands
    from spiking.kernels.rules.base import Rule


def forward(
    rule: Rule, params: Mapping[str, float], x: Tensor, operands: Operands, keep: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Spikes ``[T, ...]`` and, if ``keep``, the states after the last step (float32)."""
    x = prepare(x, outer=False)
    out = like(x, steps=True, dtype=x.dtype)
    ends = _room(x, rule.n_states if keep else 0)
    count = out[0].numel() if len(out) else 0
    if count == 0:
        return out, ends
    starts = _pair(rule, x, operands.v, operands.m)
    learnt = stacked(rule, operands)
    kernel, _ = kernels(rule)
    with torch.cuda.device_of(x):  # Triton launches on the current device
        kernel[(triton.cdiv(count, BLOCK),)](
            x, out, *_filled(starts, x), *_filled(ends, out), x if learnt is None else learnt,
            count, len(x), x.stride(0), *fixed(rule, params),
            STARTS=bool(starts), ENDS=keep, BLOCK=BLOCK, **options(),
        )  # fmt: skip
    return out, ends


def backward(
    rule: Rule,
    params: Mapping[str, float],
    x: Tensor,
    operands: Operands,
    g: Tensor | None,
    g_ends: tuple[Tensor | None, ...],
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None], Mapping[str, Tensor]]:
    """Gradients of the currents, of the given starting states, and of the learnt numbers by name."""
    x = prepare(x, outer=False)
    gx = like(x, steps=True, dtype=x.dtype)
    starts, ends = _pair(rule, x, operands.v, operands.m), _pair(rule, x, *(*g_ends, None, None)[:2])
    found = _room(x, rule.n_states if starts else 0)
    count = gx[0].numel() if len(gx) else 0
    programs, learnt = triton.cdiv(count, BLOCK), stacked(rule, operands)
    sums = torch.zeros(programs, len(rule.learnt), device=x.device)
    if count:
        g = arriving(x, g)
        kept = torch.empty(len(x), rule.n_saved, count, device=x.device)
        _, kernel = kernels(rule)
        with torch.cuda.device_of(x):
            kernel[(programs,)](
                x, g, gx, *_filled(starts, x), *_filled(ends, x), *_filled(found, gx),
                x if learnt is None else learnt, kept, sums,
                count, len(x), x.stride(0), g.stride(0), *fixed(rule, params),
                STARTS=bool(starts), ENDS=bool(ends), BLOCK=BLOCK, **options(),
            )  # fmt: skip
    gv, gm = (*found, None, None)[:2]
    totals = sums.sum(0, dtype=torch.float64).unbind()
    given = (None if operands.v is None else gv, None if operands.m is None else gm)
    return gx, given, dict(zip(rule.learnt, totals, strict=True))


def _room(x: Tensor, states: int) -> tuple[Tensor, ...]:
    return tuple(like(x, steps=False, dtype=torch.float32) for _ in range(states))


def _filled(states: tuple[Tensor, ...], instead: Tensor) -> tuple[Tensor, Tensor]:
    """Two addresses; what is not there is never read."""
    first, second = (*states, instead, instead)[:2]
    return first, second


def fixed(rule: Rule, params: Mapping[str, float]) -> list[float]:
    """The numbers that are not learnt, in the order of the kernels' arguments."""
    learnt = learnt_numbers(rule)
    return [params[name] for name in rule.names if name not in learnt]


def stacked(rule: Rule, operands: Operands) -> Tensor | None:
    """Learnt numbers in one tensor, which stays on the device."""
    names: Any = learnt_numbers(rule)
    if not names:
        return None
    if operands.table is not None:
        return operands.table.float().contiguous()
    return torch.stack([getattr(operands, name).float().reshape(()) for name in names])


def _pair(rule: Rule, x: Tensor, *given: Tensor | None) -> tuple[Tensor, ...]:
    """States in the memory order of ``x``, 0 in the place of a missing one; none without any."""
    states = given[: rule.n_states]
    if all(state is None for state in states):
        return ()
    return tuple(
        torch.zeros_like(like(x, steps=False, dtype=torch.float32)) if t is None else in_order_of(x, t)
        for t in states
    )
