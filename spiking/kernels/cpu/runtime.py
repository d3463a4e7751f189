"""Runs the CPU kernels: compiles them when first needed, hands them tensors, shares work among threads."""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spiking.kernels.cpu import codegen
from spiking.kernels.cpu.codegen import ITEM_BYTES, LANES
from spiking.kernels.cpu.lmht_writer import MixingWriter
from spiking.kernels.cpu.writer import BLOCK, PACK, UNIT, Writer, team
from spiking.kernels.layout import in_order_of, like, prepare, same_order
from spiking.kernels.rules.neurons import LMHT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spiking.kernels.rules.neurons import Rule

SCRATCH_FLOATS = 64 * 1024  # what one block keeps for the way back: 256 KiB, a quarter of a usual L2
PARALLEL_FROM = 1 << 16  # elements; below it, waking a second thread costs more than it saves
STREAM_FROM = 24 << 20  # bytes; a larger result would leave the caches before anyone reads it

_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
_NUMBERS = itertools.count()  # names of compiled functions must differ
_forked: list[int] = []  # filled in a forked child, where OpenMP's threads are gone


def _after_fork() -> None:
    _forked.append(os.getpid())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# ---------------------------------------------------------------- compiled kernels


@lru_cache(maxsize=4096)
def _kernel(rule: Rule | LMHT, back: bool, stored: str, masked: bool, stream: bool) -> tuple[int, Any]:
    """Address of a kernel, and the kernel as a Python callable."""
    writer: Writer | MixingWriter
    if isinstance(rule, LMHT):
        writer = MixingWriter(rule, stored, masked, stream)
    else:
        writer = Writer(rule, stored, masked, stream)
    name = f"neuron_{next(_NUMBERS)}"
    text = writer.backward(name) if back else writer.forward(name)
    address = codegen.compiler().function(name, text)
    i64 = ctypes.c_int64
    return address, codegen.bind(address, ctypes.c_char_p, i64, i64, i64)


@cache
def _openmp() -> tuple[Any, int, int, int] | None:
    """Torch's own OpenMP: run-in-team, addresses of the two thread queries, and of the team's task."""
    path: str | None = None
    if sys.platform.startswith("linux"):
        with open("/proc/self/maps", encoding="utf-8") as maps:
            found = {line.split()[-1] for line in maps if "omp" in line and ".so" in line}
        inside = [p for p in sorted(found) if "libgomp" in p or "libomp" in p or "libiomp" in p]
        mine = [p for p in inside if os.sep + "torch" in p]
        path = next(iter(mine or inside), None)
    try:
        library = ctypes.CDLL(path)
        run = library.GOMP_parallel
        number = ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p).value
        count = ctypes.cast(library.omp_get_num_threads, ctypes.c_void_p).value
    except (OSError, AttributeError):
        return None  # one thread, then
    if number is None or count is None:
        return None
    run.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint]
    run.restype = None
    task = codegen.compiler().function("neuron_team", team("neuron_team"))
    return run, number, count, task


def _threads(elements: int, neurons: int) -> int:
    if elements < PARALLEL_FROM or _forked:
        return 1
    wanted = min(torch.get_num_threads(), neurons // UNIT)
    return wanted if wanted > 1 and _openmp() is not None else 1


def _run(
    rule: Rule | LMHT,
    back: bool,
    stored: str,
    stream: bool,
    threads: int,
    neurons: int,
    slots: list[Any],
) -> None:
    """Packs the arguments and calls the kernel for the whole vectors, then for the rest.

    ``slots`` holds everything before the team's four slots, and the parameters after them.
    """
    rest = neurons % LANES
    full = neurons - rest
    fixed, params = slots
    if full:
        address, call = _kernel(rule, back, stored, False, stream)
        if threads > 1:
            team_ = _openmp()
            assert team_ is not None
            run, number, count, task = team_
            run(task, PACK.pack(*fixed, full, number, count, address, *params), threads, 0)
        else:
            call(PACK.pack(*fixed, 0, 0, 0, 0, *params), 0, full, 0)
    if rest:
        call = _kernel(rule, back, stored, True, False)[1]
        call(PACK.pack(*fixed, 0, 0, 0, 0, *params), full, neurons, 0)


def _pointers(tensors: Sequence[Tensor | None]) -> list[int]:
    """Two addresses, 0 where there is no tensor."""
    got = [0 if t is None else t.data_ptr() for t in tensors]
    return got + [0] * (2 - len(got))


def _can_stream(stored: str, elements: int, neurons: int, out: Tensor) -> bool:
    size = ITEM_BYTES[stored]
    return elements * size >= STREAM_FROM and neurons % (64 // size) == 0 and out.data_ptr() % 64 == 0


def _block(steps: int, kept: int) -> int:
    fitting = SCRATCH_FLOATS // max(1, steps * kept)
    return max(UNIT, min(BLOCK, fitting // UNIT * UNIT))


# ---------------------------------------------------------------- the two passes


def forward(
    rule: Rule,
    params: Sequence[float],
    x: Tensor,
    starts: Sequence[Tensor | None],
    keep: bool = True,
    coefficients: Tensor | None = None,
    conductance: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Spikes ``[T, ...]`` and, if ``keep``, the states after the last step (float32).

    Args:
        rule: the neuron.
        params: values of ``rule.names``.
        x: currents ``[T, ...]``.
        starts: states before the first step, None for rest.
        keep: whether the states after the last step are wanted.
        coefficients: ``[n, P]`` float32, a row for each of ``rule.arrays``.
        conductance: ``[T, P]`` float32, for rules that conduct.
    """
    x = prepare(x, rule.per_neuron)
    coefficients, conductance = _dense(coefficients), _dense(conductance)
    stored = _DTYPES[x.dtype]
    steps, count = x.shape[0], x.numel()
    out = like(x, True, x.dtype)
    ends = tuple(like(x, False, torch.float32) for _ in range(rule.n_states)) if keep else ()
    if count == 0:
        return out, ends
    per_step = count // steps
    repeats = x.shape[1] if rule.per_neuron else 1
    neurons = per_step // repeats
    given = [None if v is None else in_order_of(x, v) for v in starts]
    threads = _threads(count, neurons)
    fixed = [
        x.data_ptr(), out.data_ptr(), 0, 0, *_pointers(given), *_pointers(ends), 0, 0, 0, 0,
        0, 0, *_pointers((coefficients, conductance)), 0, 0,
        x.stride(0), per_step, 0, steps, BLOCK, 0, 0, repeats, neurons,
    ]  # fmt: skip
    stream = _can_stream(stored, count, per_step, out)
    _run(rule, False, stored, stream, threads, neurons, [fixed, _five(params)])
    return out, ends


def _dense(values: Tensor | None) -> Tensor | None:
    """Compiled programs may hand over expanded views, which kernels cannot read."""
    return None if values is None else values.contiguous()


def _five(params: Sequence[float]) -> tuple[float, ...]:
    return (*params, *(0.0,) * (5 - len(params)))


def backward(
    rule: Rule,
    params: Sequence[float],
    x: Tensor,
    starts: Sequence[Tensor | None],
    g: Tensor | None,
    g_ends: Sequence[Tensor | None],
    want_starts: bool = False,
    coefficients: Tensor | None = None,
    conductance: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Gradients of the currents, of the starting states (if wanted), and of the parameters.

    Args:
        rule: as in the forward pass, and so for `params`, `x`, `starts` and the two arrays.
        params: see `forward`.
        x: see `forward`.
        starts: see `forward`.
        g: gradient of the spikes ``[T, ...]``, None for zero.
        g_ends: gradients of the last states, None for zero.
        want_starts: whether gradients of the starting states are wanted.
        coefficients: see `forward`.
        conductance: see `forward`.

    Returns:
        Gradient of ``x`` in its memory order; gradients of the starting states; sums over all neurons
        and steps of the gradients of learnt scalars, or arrays ``[n, P]`` and ``[T, P]``.
    """
    x = prepare(x, rule.per_neuron)
    coefficients, conductance = _dense(coefficients), _dense(conductance)
    stored = _DTYPES[x.dtype]
    steps, count = x.shape[0], x.numel()
    gx = like(x, True, x.dtype)
    g_starts = tuple(like(x, False, torch.float32) for _ in range(rule.n_states if want_starts else 0))
    per_step = count // steps if steps else 0
    repeats = x.shape[1] if rule.per_neuron else 1
    neurons = per_step // repeats if repeats else 0
    arrays: tuple[Tensor, ...] = ()
    if rule.per_neuron and rule.n_param_grads:
        assert coefficients is not None
        assert conductance is not None
        arrays = (torch.zeros_like(coefficients), torch.zeros_like(conductance))
    threads = _threads(count, neurons)
    scalars = 0 if arrays else rule.n_param_grads
    sums = torch.zeros(threads, scalars, BLOCK)
    if count == 0:
        return gx, g_starts, arrays or tuple(sums.sum((0, 2)))
    if g is None:
        g = x.new_zeros(()).expand(x.shape)
    inner = x.stride()[1:]
    if g.dtype != x.dtype or not same_order(x.shape[1:], g.stride()[1:], inner):
        g = like(x, True, x.dtype).copy_(g)
    given = [None if v is None else in_order_of(x, v) for v in starts]
    ends = [None if v is None else in_order_of(x, v) for v in g_ends]
    block = _block(steps, rule.n_saved)
    scratch_floats = steps * rule.n_saved * block
    scratch = torch.empty(threads * scratch_floats)
    fixed = [
        x.data_ptr(), 0, g.data_ptr(), gx.data_ptr(), *_pointers(given), 0, 0, *_pointers(ends),
        *_pointers(g_starts), scratch.data_ptr(), sums.data_ptr(),
        *_pointers((coefficients, conductance)), *_pointers(arrays),
        x.stride(0), per_step, g.stride(0), steps, block, scratch_floats * 4,
        rule.n_param_grads * BLOCK * 4, repeats, neurons,
    ]  # fmt: skip
    stream = _can_stream(stored, count, per_step, gx)
    _run(rule, True, stored, stream, threads, neurons, [fixed, _five(params)])
    if scalars:
        return gx, g_starts, tuple(sums.sum((0, 2), dtype=torch.float64))
    return gx, g_starts, arrays


# ---------------------------------------------------------------- LM-HT


def forward_mixed(rule: LMHT, x: Tensor, table: Tensor) -> Tensor:
    """Outputs ``[T, ...]`` of currents ``[T', ...]``; ``table`` as in `mixing.MixingWriter`, float32."""
    x, table = prepare(x, outer=False), table.contiguous()
    stored = _DTYPES[x.dtype]
    out = like(x, rule.steps, x.dtype)
    count = out.numel()
    if count == 0:
        return out
    neurons = count // rule.steps
    threads = _threads(count, neurons)
    fixed = [
        x.data_ptr(), out.data_ptr(), *[0] * 12, table.data_ptr(), 0, 0, 0,
        x.stride(0), neurons, 0, rule.steps, 0, 0, 0, 1, neurons,
    ]  # fmt: skip
    stream = _can_stream(stored, count, neurons, out)
    _run(rule, False, stored, stream, threads, neurons, [fixed, _five(())])
    return out


def backward_mixed(rule: LMHT, x: Tensor, table: Tensor, g: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gradients of ``x``, and of ``table`` in float64 (0 for threshold and first potential)."""
    x, table = prepare(x, outer=False), table.contiguous()
    stored = _DTYPES[x.dtype]
    gx = like(x, True, x.dtype)
    count, sums_size = gx.numel(), (len(table) - 2) * LANES
    g_table = table.new_zeros(len(table), dtype=torch.float64)
    if count == 0:
        return gx, g_table
    neurons = count // rule.steps_in
    if g is None:
        g = x.new_zeros(()).expand(rule.steps, *x.shape[1:])
    if g.dtype != x.dtype or not same_order(x.shape[1:], g.stride()[1:], x.stride()[1:]):
        g = like(x, rule.steps, x.dtype).copy_(g)
    threads = _threads(count, neurons)
    sums = torch.zeros(threads, len(table) - 2, LANES, dtype=torch.float64)
    fixed = [
        x.data_ptr(), 0, g.data_ptr(), gx.data_ptr(), *[0] * 9, sums.data_ptr(), table.data_ptr(), 0, 0, 0,
        x.stride(0), neurons, g.stride(0), rule.steps, 0, 0, sums_size * 8, 1, neurons,
    ]  # fmt: skip
    stream = _can_stream(stored, count, neurons, gx)
    _run(rule, True, stored, stream, threads, neurons, [fixed, _five(())])
    g_table[2:] = sums.sum((0, 2))
    return gx, g_table
