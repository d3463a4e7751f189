"""Compiles the CPU kernels when they are first needed, and shares their work among threads."""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from spiking.kernels.cpu.arguments import Arguments
from spiking.kernels.cpu.codegen import ITEM_BYTES, LANES
from spiking.kernels.cpu.compiler import bind, compiler
from spiking.kernels.cpu.lmht_writer import MixingWriter
from spiking.kernels.cpu.writer import UNIT, Writer, team
from spiking.kernels.rules.base import Rule
from spiking.kernels.rules.neurons import LMHT

if TYPE_CHECKING:
    from collections.abc import Callable

    from spiking.kernels.rules.base import Family

PARALLEL_FROM = 1 << 16  # elements; below it, waking a second thread costs more than it saves
STREAM_FROM = 24 << 20  # bytes; a larger result would leave the caches before anyone reads it

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
_NUMBERS = itertools.count()  # names of compiled functions must differ
_forked: list[int] = []  # filled in a forked child, where OpenMP's threads are gone


def _after_fork() -> None:
    _forked.append(os.getpid())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# ---------------------------------------------------------------- compiled kernels


def _writer(rule: Family, stored: str, masked: bool, stream: bool) -> Writer | MixingWriter:
    if isinstance(rule, LMHT):
        return MixingWriter(rule, stored, masked, stream)
    assert isinstance(rule, Rule)
    return Writer(rule, stored, masked, stream)


@lru_cache(maxsize=4096)
def kernel(rule: Family, back: bool, stored: str, masked: bool, stream: bool) -> tuple[int, Any]:
    """Address of a kernel, and the kernel as a Python callable."""
    writer = _writer(rule, stored, masked, stream)
    return compiled(writer.backward if back else writer.forward)


def compiled(write: Callable[[str], str]) -> tuple[int, Any]:
    """What ``write(name)`` writes, as an address and as a Python callable."""
    name = f"neuron_{next(_NUMBERS)}"
    address = compiler().function(name, write(name))
    i64 = ctypes.c_int64
    return address, bind(address, ctypes.POINTER(Arguments), i64, i64, i64)


class _OpenMP(NamedTuple):
    """Torch's own OpenMP: a function run by a team, and addresses of two queries."""

    parallel: Any
    thread_num: int
    num_threads: int


@cache
def _openmp() -> _OpenMP | None:
    path: str | None = None
    if sys.platform.startswith("linux"):
        with open("/proc/self/maps", encoding="utf-8") as maps:
            found = {line.split()[-1] for line in maps if "omp" in line and ".so" in line}
        inside = [p for p in sorted(found) if "libgomp" in p or "libomp" in p or "libiomp" in p]
        mine = [p for p in inside if os.sep + "torch" in p]
        path = next(iter(mine or inside), None)
    try:
        library = ctypes.CDLL(path)
        parallel = library.GOMP_parallel
        number = ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p).value
        count = ctypes.cast(library.omp_get_num_threads, ctypes.c_void_p).value
    except (OSError, AttributeError):
        return None  # one thread, then
    if number is None or count is None:
        return None
    parallel.argtypes = [ctypes.c_void_p, ctypes.POINTER(Arguments), ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    return _OpenMP(parallel, number, count)


@cache
def _task(unit: int) -> int:
    """Address of what each thread of a team runs."""
    name = f"team_{unit}"
    return compiler().function(name, team(name, unit))


def can_share() -> bool:
    """Whether more than one thread can run a kernel."""
    return not _forked and _openmp() is not None


def share(kernel: tuple[int, Any], arguments: Arguments, count: int, threads: int, unit: int) -> None:
    """Runs a kernel on the range from 0 to ``count``, of which each thread gets a multiple of ``unit``.

    Args:
        kernel: its address, and the kernel as a Python callable.
        arguments: filled in, but for the team's part.
        count: end of the range.
        threads: how many take part.
        unit: what is not divided.
    """
    address, call = kernel
    if threads == 1:
        call(arguments, 0, count, 0)
        return
    openmp = _openmp()
    assert openmp is not None
    arguments.full, arguments.kernel = count, address
    arguments.thread_num, arguments.num_threads = openmp.thread_num, openmp.num_threads
    openmp.parallel(_task(unit), arguments, threads, 0)


def threads_for(elements: int, neurons: int) -> int:
    """How many threads share a call on so many numbers."""
    return team_size(elements, neurons // UNIT)


def team_size(elements: int, units: int) -> int:
    """The same for work that comes in so many units."""
    if elements < PARALLEL_FROM:
        return 1
    wanted = min(torch.get_num_threads(), units)
    return wanted if wanted > 1 and can_share() else 1


def run(rule: Family, back: bool, stored: str, stream: bool, arguments: Arguments, threads: int) -> None:
    """Calls the kernel for the whole vectors, then for the rest.

    Args:
        rule: the equations.
        back: which of the two passes.
        stored: element type of currents, spikes and their gradients.
        stream: whether results bypass the caches, see `can_stream`.
        arguments: filled in, but for the team's part.
        threads: see `threads_for`.
    """
    neurons: int = arguments.neurons
    rest = neurons % LANES
    full = neurons - rest
    if full:
        share(kernel(rule, back, stored, False, stream), arguments, full, threads, UNIT)
    if rest:
        _, call = kernel(rule, back, stored, True, False)
        call(arguments, full, neurons, 0)


def can_stream(stored: str, elements: int, neurons: int, out: Tensor) -> bool:
    """Whether a result is large enough for streaming stores, and aligned as they need it."""
    size = ITEM_BYTES[stored]
    return elements * size >= STREAM_FROM and neurons % (64 // size) == 0 and out.data_ptr() % 64 == 0
