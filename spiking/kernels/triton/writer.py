"""The two kernels of a rule as text, and Triton's functions made of it.

The algorithm is that of the CPU kernels with registers in the place of caches: one program owns a block of
neurons and walks through time. Forward writes spikes only. Backward runs forward again, keeps what the rule
wants to see in a scratch area of global memory, freed at once, and walks back over it; so nothing is kept
between the passes but the input.

``TRITON_INTERPRET=1`` runs the same source on a CPU, which is how it is tested; no number was measured on a
GPU yet.
"""

from __future__ import annotations

import itertools
import linecache
from functools import lru_cache
from textwrap import indent
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from spiking.kernels.rules.expressions import Vec
from spiking.kernels.triton.code import TritonCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spiking.kernels.rules.base import Rule

_NUMBERS = itertools.count()

FORWARD = """\
@triton.jit
def forward(
    x_ptr, out_ptr, start0_ptr, start1_ptr, end0_ptr, end1_ptr, learnt_ptr, count, steps, x_step, {fixed}
    STARTS: tl.constexpr, ENDS: tl.constexpr, BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = i < count
{rest}
    at, x_at = i, i  # carried along in 64 bits: T times the neurons may not fit into 32
    for _ in range(steps):
        x = tl.load(x_ptr + x_at, mask=here, other=0.0).to(tl.float32)
{step}
        tl.store(out_ptr + at, {spikes}.to(out_ptr.dtype.element_ty), mask=here)
        {states} = {after}
        at += count
        x_at += x_step
    if ENDS:
{ends}
"""
BACKWARD = """\
@triton.jit
def backward(
    x_ptr, g_ptr, gx_ptr, start0_ptr, start1_ptr, gend0_ptr, gend1_ptr, gstart0_ptr, gstart1_ptr,
    learnt_ptr, kept_ptr, sums_ptr, count, steps, x_step, g_step, {fixed}
    STARTS: tl.constexpr, ENDS: tl.constexpr, BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = i < count
{rest}
    at, x_at, g_at, kept_at = i, i, i, i
    for _ in range(steps):
        x = tl.load(x_ptr + x_at, mask=here, other=0.0).to(tl.float32)
{step}
{keep}
        {states} = {after}
        at += count
        x_at += x_step
        g_at += g_step
{arriving}
    for _ in range(steps):
        at -= count
        g_at -= g_step
{recall}
        g = tl.load(g_ptr + g_at, mask=here, other=0.0).to(tl.float32)
{back}
        tl.store(gx_ptr + at, {current}.to(gx_ptr.dtype.element_ty), mask=here)
{sum}
        {errors} = {before}
    if STARTS:
{leaving}
{total}
"""


def learnt_numbers(rule: Rule) -> tuple[str, ...]:
    """Those of `Rule.names` that come as a tensor."""
    return rule.tabled or rule.learnt


@lru_cache(maxsize=1024)
def kernels(rule: Rule) -> tuple[Any, Any]:
    """Triton's functions for the way there and for the way back."""
    text = forward_text(rule), backward_text(rule)
    return function("forward", text[0]), function("backward", text[1])


def function(name: str, text: str) -> Any:
    """Triton's function of a kernel's text."""
    file = f"<spiking neuron {next(_NUMBERS)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)  # Triton reads it there
    namespace: dict[str, Any] = {"__name__": __name__, "triton": triton, "tl": tl}
    exec(compile(text, file, "exec"), namespace)
    return namespace[name]


def forward_text(rule: Rule) -> str:
    """Of the kernel from currents to spikes."""
    parts = _there(rule)
    names = parts.pop("names")
    ends = [f"tl.store(end{k}_ptr + i, {name}, mask=here)" for k, name in enumerate(names)]
    del parts["saved"]
    return FORWARD.format(**parts, ends=lines(ends, 8))


def backward_text(rule: Rule) -> str:
    """Of the kernel from gradients of spikes to gradients of currents."""
    parts = _there(rule)
    states, saved = range(rule.n_states), parts.pop("saved")
    del parts["names"], parts["spikes"]
    keep: list[str] = []
    recall: list[str] = []
    for k, one in enumerate(saved):
        keep += [f"tl.store(kept_ptr + kept_at, {one.name}, mask=here)", "kept_at += count"]
        recall.insert(0, f"m{k} = tl.load(kept_ptr + kept_at, mask=here, other=0.0)")
        recall.insert(0, "kept_at -= count")
    c = TritonCode("b", exact=False)
    e = tuple(Vec(c, f"e{k}") for k in states)
    kept = tuple(Vec(c, f"m{k}") for k in range(len(saved)))
    back = rule.backward(c, named(c, rule), kept, Vec(c, "g"), e)
    learnt = list(enumerate(rule.learnt))
    arriving = [f"e{k} = tl.zeros((BLOCK,), tl.float32)" for k in states]
    arriving += ["if ENDS:", *(f"    e{k} = tl.load(gend{k}_ptr + i, mask=here, other=0.0)" for k in states)]
    arriving += [f"d{j} = tl.zeros((BLOCK,), tl.float32)" for j, _ in learnt]
    total = f"sums_ptr + tl.program_id(0) * {len(learnt)}"
    return BACKWARD.format(
        **parts,
        keep=lines(keep, 8),
        arriving=lines(arriving, 4),
        recall=lines(recall, 8),
        back=lines(c.take(), 8),
        current=back.current.name,
        sum=lines([f"d{j} += tl.where(here, {back.params[name].name}, 0.0)" for j, name in learnt], 8),
        errors=", ".join(one.name for one in e),
        before=", ".join(one.name for one in back.states),
        leaving=lines([f"tl.store(gstart{k}_ptr + i, e{k}, mask=here)" for k in states], 8),
        total=lines([f"tl.store({total} + {j}, tl.sum(d{j}, 0))" for j, _ in learnt], 4),
    )


def _there(rule: Rule) -> dict[str, Any]:
    """What both kernels have in common: states at rest, and a step forward."""
    c = TritonCode("n", exact=True)
    params, states = named(c, rule), tuple(Vec(c, f"s{k}") for k in range(rule.n_states))
    learnt = learnt_numbers(rule)
    first = [f"{params[name].name} = tl.load(learnt_ptr + {k})" for k, name in enumerate(learnt)]
    for state, value in zip(states, rule.rest(params), strict=True):
        rest = c.as_vec(value)
        first += [*c.take(), f"{state.name} = tl.zeros((BLOCK,), tl.float32) + {rest.name}"]
    first += ["if STARTS:"]
    first += [f"    s{k} = tl.load(start{k}_ptr + i, mask=here, other=0.0)" for k in range(len(states))]
    step = rule.forward(c, params, Vec(c, "x"), states)
    spikes = rule.emitted(c, params, step)
    return {
        "fixed": "".join(f"{params[name].name}, " for name in rule.names if name not in learnt),
        "rest": lines(first, 4),
        "step": lines(c.take(), 8),
        "spikes": spikes.name,
        "states": ", ".join(state.name for state in states),
        "after": ", ".join(state.name for state in step.states),
        "names": [state.name for state in states],
        "saved": step.saved,
    }


def named(c: TritonCode, rule: Rule) -> dict[str, Vec]:
    """The parameters of a rule, as kernels call them."""
    return {name: Vec(c, f"p_{name}") for name in rule.names}


def lines(of: Sequence[str], depth: int) -> str:
    """Lines of a kernel, so many blanks deep."""
    return indent("\n".join(of), " " * depth)
