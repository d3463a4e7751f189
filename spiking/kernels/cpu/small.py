"""Small layers: passes so short that what Python does around them takes most of the time.

Such a pass is one call into C with one record, the addresses of its tensors. All else lies ready in a block
of arguments, filled in once for currents of one shape; a few lines of machine code copy it, put the addresses
in, and call the kernel. So calls share nothing that changes, and one thread does the work.
"""

from __future__ import annotations

import ctypes
from functools import cache, lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from spiking.kernels.cpu.arguments import Arguments, slot
from spiking.kernels.cpu.codegen import LANES, Code
from spiking.kernels.cpu.compiler import bind, compiler
from spiking.kernels.cpu.passes import backward_block
from spiking.kernels.cpu.runtime import DTYPES, PARALLEL_FROM, kernel
from spiking.kernels.cpu.writer import BLOCK, UNIT
from spiking.kernels.layout import in_order_of, like, same_order, steps_are_dense
from spiking.kernels.rules.base import Rule

if TYPE_CHECKING:
    from torch import Tensor

    from spiking.kernels.launch import Launch

FORWARD = ("x", "out", "start0", "start1", "end0", "end1")
BACKWARD = ("x", "gx", "g", "g_step", "scratch", "start0", "start1", "gend0", "gend1", "gstart0", "gstart1")
CALL = ("known", "kernel", "first", "last")  # in front of the addresses of a record
NEAREST = 8 * 1024  # floats in 32 KiB, a usual first-level cache


class Ready(NamedTuple):
    """A pass over currents of one shape.

    Attributes:
        enter: takes a record.
        pack: makes one.
        calls: the values of `CALL` for whole vectors, and for the rest.
        states: how many states are wanted after the last step.
        scratch: floats to keep for the way back.
        known: the block of arguments that the calls name.
    """

    enter: Any
    pack: Any
    calls: tuple[tuple[int, int, int, int], ...]
    states: int
    scratch: int
    known: Arguments

    def run(self, *addresses: int) -> None:
        """Runs the pass; addresses are those of `FORWARD` or `BACKWARD`."""
        for call in self.calls:
            self.enter(self.pack(*call, *addresses))


def forward(
    launch: Launch, x: Tensor, v: Tensor | None = None, m: Tensor | None = None
) -> tuple[Tensor, ...] | None:
    """Spikes and, if wanted, the last states, as `passes.forward`; None where that has to run.

    Args:
        launch: the neuron.
        x: currents ``[T, ...]``.
        v: first state before the first step, None for rest.
        m: second state.
    """
    ready = _of(launch, False, x)
    if ready is None:
        return None
    out = like(x, True, x.dtype)
    if v is None and m is None and not ready.states:
        ready.run(x.data_ptr(), out.data_ptr(), 0, 0, 0, 0)
        return (out,)
    starts = _ordered(x, v), _ordered(x, m)
    ends = [like(x, False, torch.float32) for _ in range(ready.states)]
    ready.run(x.data_ptr(), out.data_ptr(), *map(_at, starts), *map(_at, (*ends, None, None)[:2]))
    return out, *ends


def backward(
    launch: Launch,
    x: Tensor,
    g: Tensor | None,
    g_ends: tuple[Tensor | None, ...] = (),
    v: Tensor | None = None,
    m: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None] | None:
    """Gradients of ``x``, ``v`` and ``m``, as `passes.backward`; None where that has to run.

    Args:
        launch: the neuron.
        x: currents ``[T, ...]``.
        g: gradient of the spikes.
        g_ends: gradients of the last states.
        v: as in `forward`.
        m: as in `forward`.
    """
    ready = None if g is None or g.dtype is not x.dtype else _of(launch, True, x)
    if ready is None or g is None:
        return None
    if not (g.is_contiguous() and x.is_contiguous()) and not same_order(
        x.shape[1:], g.stride()[1:], x.stride()[1:]
    ):
        g = like(x, True, x.dtype).copy_(g)
    gx, scratch = like(x, True, x.dtype), torch.empty(ready.scratch)
    always = x.data_ptr(), gx.data_ptr(), g.data_ptr(), g.stride(0), scratch.data_ptr()
    if v is None and m is None and not g_ends:
        ready.run(*always, 0, 0, 0, 0, 0, 0)
        return gx, None, None
    given = _ordered(x, v), _ordered(x, m), *(_ordered(x, g_end) for g_end in (*g_ends, None, None)[:2])
    gv, gm = (None if state is None else like(x, False, torch.float32) for state in (v, m))
    ready.run(*always, *map(_at, (*given, gv, gm)))
    return gx, gv, gm


def _ordered(x: Tensor, state: Tensor | None) -> Tensor | None:
    return None if state is None else in_order_of(x, state)


def _at(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _of(launch: Launch, back: bool, x: Tensor) -> Ready | None:
    """What is ready for ``x``; None where the layer is large, or the neurons learn numbers of their own."""
    if not (x.is_contiguous() or steps_are_dense(x, outer=False)):
        return None
    return _ready(launch, back, x.dtype, x.shape, x.stride(0))


@lru_cache(maxsize=1024)
def _ready(launch: Launch, back: bool, dtype: torch.dtype, shape: torch.Size, x_step: int) -> Ready | None:
    rule, numbers = launch.rule, shape.numel()
    if not isinstance(rule, Rule) or not 0 < numbers < PARALLEL_FROM:
        return None
    if rule.per_neuron or rule.conducts or rule.tabled or rule.learnt:
        return None
    steps = shape[0]
    neurons = numbers // steps
    block = _block(steps, rule.n_saved) if back else BLOCK
    scratch = steps * rule.n_saved * block
    known = Arguments(
        x_step=x_step, out_step=neurons, steps=steps, neurons=neurons, repeats=1, block=block,
        scratch_size=4 * scratch,
    )  # fmt: skip
    known.params[: len(rule.names)] = [launch.params[name] for name in rule.names]
    at, whole = ctypes.addressof(known), neurons - neurons % LANES
    calls = tuple(
        (at, kernel(rule, back, DTYPES[dtype], masked, False)[0], first, last)
        for masked, first, last in ((False, 0, whole), (True, whole, neurons))
        if first < last
    )
    places = BACKWARD if back else FORWARD
    states = rule.n_states if launch.keep else 0
    return Ready(_entry(places), Struct(f"{len(CALL) + len(places)}q").pack, calls, states, scratch, known)


def _block(steps: int, kept: int) -> int:
    """Neurons of a block on the way back: what they read, keep and write stays in the first-level cache."""
    nearest = NEAREST // (steps * (kept + 3)) // UNIT * UNIT
    return min(backward_block(steps, kept), max(4 * UNIT, nearest))


@cache
def _entry(places: tuple[str, ...]) -> Any:
    """What takes a record: the values of `CALL`, and what is put into these places of the arguments."""
    name = f"small_{'_'.join(places)}"
    c = Code()
    given = [c.scalar(f"load i64, ptr {c.at('%r', 'i64', str(k))}") for k in range(len(CALL) + len(places))]
    known, called = (c.scalar(f"inttoptr i64 {value} to ptr") for value in given[:2])
    size = ctypes.sizeof(Arguments)
    block = c.scalar(f"alloca [{size} x i8], align 64")
    c.declared.add("declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)")
    c.raw(f"call void @llvm.memcpy.p0.p0.i64(ptr {block}, ptr {known}, i64 {size}, i1 false)")
    for place, value in zip(places, given[len(CALL) :], strict=True):
        c.raw(f"store i64 {value}, ptr {c.at(block, 'i64', str(slot(place)))}")
    c.raw(f"call void {called}(ptr {block}, i64 {given[2]}, i64 {given[3]}, i64 0)")
    return bind(compiler().function(name, c.module(name, "ptr %r")), ctypes.c_char_p)
