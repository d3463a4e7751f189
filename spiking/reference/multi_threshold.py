"""Neurons with many thresholds step by step, straight from the equations: the oracle of the fast forms.

ECMT 2502.21193, DCGS 2503.00301. Letters: ``u`` potential before a spike, ``v`` after it, ``s`` what is sent,
``c`` what was sent in all, ``m`` means over time. States live in float32, or float64 for float64 signals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spiking.levels import MARGIN, ROUNDING
from spiking.reference.neurons import state_dtype

if TYPE_CHECKING:
    from spiking.levels import Levels


def _sides(u: Tensor, levels: Levels) -> tuple[Tensor, Tensor]:
    """The smallest level of the positive and of the negative side."""
    positive = levels.unit.to(u)
    return positive, positive if levels.negative_unit is None else levels.negative_unit.to(u)


def _reached(u: Tensor, up: Tensor, down: Tensor, levels: Levels) -> tuple[Tensor, Tensor]:
    """Where a potential reaches a positive level, and where a negative one."""
    if levels.fires == "midpoint":
        return u >= 0.75 * up, u <= -0.75 * down
    if levels.fires == "offset":
        positive, negative = _sides(u, levels)
        return u + positive / 2 >= up, -u + negative / 2 >= down
    return u >= up, u <= torch.zeros_like(down)


def choose_level(u: Tensor, sent: Tensor, levels: Levels, kind: str) -> Tensor:
    """The level that a potential sends: the largest that may fire, the positive side first.

    Args:
        u: potential ``[...]``.
        sent: sum of all that was sent before ``[...]``; only the ReLU kind looks at it.
        levels: thresholds.
        kind: ``"identity"``; ``"relu"`` takes back no more than was sent, ``"positive"`` nothing at all.
    """
    positive, negative = _sides(u, levels)
    s, silent = torch.zeros_like(u), torch.ones_like(u, dtype=torch.bool)
    for k in reversed(range(levels.n)):
        up, down = positive * 2**k, negative * 2**k
        above, below = _reached(u, up, down, levels)
        if kind == "relu":
            below = below & (sent >= down)
        elif kind == "positive":
            below = torch.zeros_like(below)
        above, below = silent & above & (up > 0), silent & ~above & below & (down > 0)
        s = torch.where(above, up, torch.where(below, -down, s))
        silent = silent & ~above & ~below
    return s


def choose_level_at_once(u: Tensor, sent: Tensor, levels: Levels, kind: str) -> Tensor:
    """`choose_level` over all levels together: n times the memory, and a graph that does not grow with n.

    Whatever reaches a level reaches the smaller ones of its side, too, so the largest one reached is sent.
    The sides exclude each other.
    """
    positive, negative = _sides(u, levels)
    powers = 2.0 ** torch.arange(levels.n, device=u.device, dtype=u.dtype)
    powers = powers.view(-1, *(1,) * u.dim())
    up, down = positive * powers, negative * powers
    above, below = _reached(u, up, down, levels)
    sent_up = torch.where(above & (up > 0), up, 0.0).amax(0)
    if kind == "positive":
        return sent_up
    below = below & ~above & (down > 0)
    if kind == "relu":
        below = below & (sent >= down)
    return sent_up - torch.where(below, down, 0.0).amax(0)


class _Quantise(torch.autograd.Function):
    """`choose_level` forward; backward the clamp that it samples."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, sent: Tensor, levels: Levels, kind: str) -> Tensor:
        return choose_level(u, sent, levels, kind)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        u, sent, ctx.levels, ctx.kind = inputs
        ctx.save_for_backward(u, sent)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (u, sent), levels, (g,) = ctx.saved_tensors, ctx.levels, grads
        by_u, by_sent = slopes(u, sent, levels, ctx.kind)
        return g * by_u, g * by_sent, None, None


def slopes(u: Tensor, sent: Tensor, levels: Levels, kind: str) -> tuple[Tensor, Tensor]:
    """Derivatives by ``u`` and by ``sent`` of ``clamp(u - v_0, -low, high)``; 0 on the bounds.

    ``high`` is the largest positive level, ``low`` the largest negative one; for the ReLU kind no more than
    ``sent``, for the positive kind 0.
    """
    unit = levels.unit.to(u)
    high = (unit * 2 ** (levels.n - 1)).clamp_min(0).expand_as(u)
    w, kept, zero = u - start(levels, u), sent.clamp_min(0), torch.zeros_like(u)
    low = (
        high
        if levels.negative_unit is None
        else levels.negative_unit.to(u).clamp_min(0) * 2 ** (levels.n - 1)
    )
    if kind != "identity":
        low = torch.minimum(kept, high) if kind == "relu" else zero
    inside = (w < high) & (w > -low)
    given_back = (w <= -kept) & (kept > 0) & (kept < high) if kind == "relu" else zero.bool()
    return inside.to(u.dtype), -given_back.to(u.dtype)


def start(levels: Levels, like: Tensor) -> Tensor:
    """The potential before the first step ``[...]``."""
    value = levels.unit.to(like) / 2 if levels.fires == "single" else torch.zeros_like(like)
    return value.expand_as(like)


def quantise(u: Tensor, sent: Tensor, levels: Levels, kind: str) -> Tensor:
    """`choose_level` with the straight-through gradient that `slopes` says."""
    if torch.compiler.is_exporting():  # a graph for inference needs no surrogate
        return choose_level_at_once(u, sent, levels, kind)
    chosen: Tensor = _Quantise.apply(u, sent, levels, kind)
    return chosen


def rate_coded(
    x: Tensor, levels: Levels, state: tuple[Tensor, Tensor] | None = None, *, kind: str = "identity"
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """``u = v + x``, send the level ``s``, ``v = u - s``.

    See `spiking.functional.multi_threshold.rate_coded`.

    Args:
        x: currents ``[T, B, ...]``.
        levels: thresholds.
        state: potential and sum of all sent so far ``[B, ...]``.
        kind: see `choose_level`.
    """
    x, dtype = x.to(state_dtype(x)), x.dtype
    v, sent = state if state is not None else (start(levels, x[0]), torch.zeros_like(x[0]))
    out = []
    for x_t in x.unbind(0):
        u = v + x_t
        s = quantise(u, sent, levels, kind)
        v, sent = u - s, sent + s
        out.append(s)
    return torch.stack(out).to(dtype), (v, sent)


def track(
    mi: Tensor,
    levels: Levels,
    state: tuple[int | Tensor, Tensor] | None = None,
    *,
    kind: str = "identity",
    code: str = "differential",
) -> tuple[Tensor, Tensor, tuple[int | Tensor, Tensor]]:
    """A neuron between represented values, step by step; see `spiking.functional.multi_threshold.track`.

    Args:
        mi: represented input ``[T, B, ...]``.
        levels: thresholds.
        state: steps done, and the output mean (differential) or the sum of all spikes (rate) ``[B, ...]``.
        kind: see `choose_level`.
        code: what a spike means.

    Returns:
        Represented output ``[T, B, ...]``, spikes ``[T, B, ...]``, state.
    """
    mi, dtype = mi.to(state_dtype(mi)), mi.dtype
    done, held = state if state is not None else (0, torch.zeros_like(mi[0]))
    first = start(levels, mi[0])
    means, spikes = [], []
    for i, m in enumerate(mi.unbind(0), 1):
        t = done + i
        if code == "rate":
            s = quantise(t * m - held + first, held, levels, kind)
            held = held + s
            means.append(held / t)
        else:
            s = quantise(t * (m - held) + first, t * held * MARGIN, levels, kind)
            after = held + s / t
            size = torch.maximum(held.abs(), levels.unit.to(held))
            held = after - after.where(after.abs() <= size * ROUNDING, 0.0).detach()  # of slope 1, too
            means.append(held)
        spikes.append(s)
    return torch.stack(means).to(dtype), torch.stack(spikes).to(dtype), (done + len(mi), held)


def differential(x: Tensor, levels: Levels, *, kind: str = "identity") -> Tensor:
    """A differential neuron in the form of the paper's code: slot 0 carries the bias (2503.00301).

    ``r = mi + x_t - b`` is the decoded input. With ``u = v + r - mo`` and ``c = c + mo`` the level ``s`` is
    sent, then ``v = u - s``, ``c = c + s``, ``mi = mi + (x_t - b) / t``, ``mo = mo + s / t``. The code's
    ``IF_diff_line`` is broken (a misspelt attribute, or the bias left in); here it follows this scheme.

    Args:
        x: currents ``[T + 1, B, ...]``, the first being the bias b.
        levels: thresholds.
        kind: see `choose_level`.

    Returns:
        Spikes ``[T + 1, B, ...]``; slot 0 is zero.
    """
    x, dtype = x.to(state_dtype(x)), x.dtype
    bias, mi, mo = x[0], x[0], torch.zeros_like(x[0])
    v, c = start(levels, x[0]), torch.zeros_like(x[0])
    out = [torch.zeros_like(x[0])]
    for t, x_t in enumerate(x[1:].unbind(0), 1):
        u = v + mi + (x_t - bias) - mo
        c = c + mo
        s = quantise(u, c, levels, kind)
        v, c = u - s, c + s
        mi, mo = mi + (x_t - bias) / t, mo + s / t
        out.append(s)
    return torch.stack(out).to(dtype)
