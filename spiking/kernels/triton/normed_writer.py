"""The kernels of a neuron behind a norm as text, whose currents are computed on the way.

One program owns a block of what leaves: neurons, or windows of four whose spikes are pooled. How they walk
through time is told in `spiking.kernels.triton.writer`; `spiking.kernels.cpu.normed_writer` is the same for
CPUs. Sums over channels are left to PyTorch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from spiking.kernels.rules.expressions import Vec
from spiking.kernels.rules.pooling import WINDOW, kept, pooled, shares
from spiking.kernels.triton.code import TritonCode
from spiking.kernels.triton.writer import function, learnt_numbers, lines, named

if TYPE_CHECKING:
    from spiking.kernels.rules.base import Rule

START = """\
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = i < count
{place}
    scale = tl.load(scale_ptr + channel, mask=here, other=0.0)
    shift = tl.load(shift_ptr + channel, mask=here, other=0.0)
{rest}
    at = i.to(tl.int64)  # carried along in 64 bits: T times the neurons may not fit into 32
"""
FORWARD = (
    """\
@triton.jit
def forward(
    x_ptr, out_ptr, scale_ptr, shift_ptr, learnt_ptr, count, steps, x_step, {sizes}, {fixed}
    BLOCK: tl.constexpr,
):
"""
    + START
    + """\
    for _ in range(steps):
{step}
        tl.store(out_ptr + at, {out}.to(out_ptr.dtype.element_ty), mask=here)
        {states} = {after}
        at += count
{forth}
"""
)
BACKWARD = (
    """\
@triton.jit
def backward(
    x_ptr, g_ptr, gx_ptr, scale_ptr, shift_ptr, learnt_ptr, kept_ptr, sums_ptr, count, steps, x_step, g_step,
    {sizes}, {fixed}
    BLOCK: tl.constexpr,
):
"""
    + START
    + """\
    kept_at = at
    for _ in range(steps):
{step}
{keep}
        {states} = {after}
        at += g_step
{forth}
{arriving}
    for _ in range(steps):
        at -= g_step
{back_to}
{recall}
        g = tl.load(g_ptr + at, mask=here, other=0.0).to(tl.float32)
{back}
{give}
{sum}
        {errors} = {before}
{leaving}
{total}
"""
)
ALONE = ["channel = (i // inner) % channels", "a0 = i.to(tl.int64)"]
WINDOWS = [  # unit: how far neighbours of a row lie apart, C in channels-last maps and 1 in contiguous ones
    "lane, row = i % unit, (i // unit) // across",
    "channel = lane + ((row // rows) % channels) * (unit == 1)",
    "a0 = (row.to(tl.int64) * (4 * across) + 2 * ((i // unit) % across)) * unit + lane",
    "a1 = a0 + unit",
    "a2 = a0 + 2 * across * unit",
    "a3 = a2 + unit",
]


@lru_cache(maxsize=1024)
def normed_kernels(rule: Rule, pooling: str | None, still: bool) -> tuple[Any, Any]:
    """Triton's functions for the way there and for the way back."""
    forward, backward = forward_text(rule, pooling), backward_text(rule, pooling, still)
    return function("forward", forward), function("backward", backward)


def forward_text(rule: Rule, pooling: str | None) -> str:
    """Of the kernel from numbers to spikes, or to what is pooled of them."""
    parts = _there(rule, pooling)
    del parts["saved"]
    return FORWARD.format(**parts)


def backward_text(rule: Rule, pooling: str | None, still: bool) -> str:
    """Of the kernel from gradients of what left to gradients of currents, summed over time if ``still``."""
    parts = _there(rule, pooling)
    saved = parts.pop("saved")
    del parts["out"]
    keep: list[str] = []
    recall: list[str] = []
    for m, own in enumerate(saved):
        for n, one in enumerate(own):
            keep += [f"tl.store(kept_ptr + kept_at, {one.name}, mask=here)", "kept_at += count"]
            recall.insert(0, f"m{m}_{n} = tl.load(kept_ptr + kept_at, mask=here, other=0.0)")
            recall.insert(0, "kept_at -= count")
    c = TritonCode("b", exact=False)
    params, g, learnt = named(c, rule), Vec(c, "g"), list(enumerate(rule.learnt))
    if pooling == "avg":
        g = g * (1.0 / WINDOW)
    errors, before, give, add = [], [], [], []
    for m in range(len(saved)):
        e = tuple(Vec(c, f"e{m}_{k}") for k in range(rule.n_states))
        numbers = tuple(Vec(c, f"m{m}_{n}") for n in range(kept(rule.n_saved, pooling)))
        mine = g * numbers[-1] if pooling == "max" else g
        back = rule.backward(c, params, numbers[: rule.n_saved], mine, e)
        errors += [one.name for one in e]
        before += [one.name for one in back.states]
        give.append(f"w{m} += {back.current.name}" if still else _store(m, back.current.name))
        add += [f"d{j} += tl.where(here, {back.params[name].name}, 0.0)" for j, name in learnt]
    own_sums = [f"w{m}" for m in range(len(saved)) if still]
    arriving = [f"{name} = tl.zeros((BLOCK,), tl.float32)" for name in (*errors, *own_sums)]
    arriving += [f"d{j} = tl.zeros((BLOCK,), tl.float32)" for j, _ in learnt]
    total = f"sums_ptr + tl.program_id(0) * {len(learnt)}"
    return BACKWARD.format(
        **parts,
        keep=lines(keep, 8),
        arriving=lines(arriving, 4),
        back_to=lines([f"a{m} -= x_step" for m in range(len(saved))], 8),
        recall=lines(recall, 8),
        back=lines(c.take(), 8),
        give=lines(give, 8),
        sum=lines(add, 8),
        errors=", ".join(errors),
        before=", ".join(before),
        leaving=lines([_store(m, name) for m, name in enumerate(own_sums)], 4),
        total=lines([f"tl.store({total} + {j}, tl.sum(d{j}, 0))" for j, _ in learnt], 4),
    )


def _store(m: int, name: str) -> str:
    return f"tl.store(gx_ptr + a{m}, {name}.to(gx_ptr.dtype.element_ty), mask=here)"


def _there(rule: Rule, pooling: str | None) -> dict[str, Any]:
    """What both kernels have in common: places, states at rest, and a step forward."""
    c = TritonCode("n", exact=True)
    params, members = named(c, rule), range(WINDOW if pooling else 1)
    learnt = learnt_numbers(rule)
    first = [f"{params[name].name} = tl.load(learnt_ptr + {k})" for k, name in enumerate(learnt)]
    states = [[Vec(c, f"s{m}_{k}") for k in range(rule.n_states)] for m in members]
    for k, value in enumerate(rule.rest(params)):
        rest = c.as_vec(value)
        first += [*c.take(), *(f"s{m}_{k} = tl.zeros((BLOCK,), tl.float32) + {rest.name}" for m in members)]
    step, spikes, after, saved = [], [], [], []
    for m in members:
        step.append(f"x{m} = tl.load(x_ptr + a{m}, mask=here, other=0.0).to(tl.float32) * scale + shift")
        done = rule.forward(c, params, Vec(c, f"x{m}"), tuple(states[m]))
        spikes.append(rule.emitted(c, params, done))
        after += [state.name for state in done.states]
        saved.append(list(done.saved))
        step += c.take()
    out = pooled(c, pooling, spikes)
    if pooling == "max":
        for own, share in zip(saved, shares(c, spikes), strict=True):
            own.append(share)
    step += c.take()
    return {
        "sizes": "channels, unit, across, rows" if pooling else "channels, inner",
        "fixed": "".join(f"{params[name].name}, " for name in rule.names if name not in learnt),
        "place": lines(WINDOWS if pooling else ALONE, 4),
        "rest": lines(first, 4),
        "step": lines(step, 8),
        "out": out.name,
        "states": ", ".join(state.name for own in states for state in own),
        "after": ", ".join(after),
        "forth": lines([f"a{m} += x_step" for m in members], 8),
        "saved": saved,
    }
