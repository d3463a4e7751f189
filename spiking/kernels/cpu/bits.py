"""The kernels of `spiking.kernels.bits`: every number is compared to the bit while it is packed."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spiking.kernels.bit_code import MULTIPLE, ONE, QUARTER
from spiking.kernels.cpu.arguments import Arguments, slot
from spiking.kernels.cpu.codegen import Code
from spiking.kernels.cpu.runtime import compiled, share, team_size

if TYPE_CHECKING:
    from collections.abc import Callable

GROUP = 32  # numbers of one step of a kernel
ROUND = MULTIPLE  # numbers between two looks at what was found


def _splat(element: str, value: float) -> str:
    return "<" + ", ".join([f"{element} {value}"] * GROUP) + ">"


def _vector(element: str) -> str:
    return f"<{GROUP} x {element}>"


class _Packer:
    """Writes a kernel over rounds of a tensor: from ``x`` to ``out``, with a flag in ``sums`` if it fails.

    Args:
        width: bits of a number.
        one: the bits of 1.
    """

    def __init__(self, width: int, one: int) -> None:
        self.c, self.width, self.one = Code(), width, one

    def _kernel(self, name: str, step: Callable[[str, str, str], str | None]) -> str:
        """The loops around ``step(x, out, at)``, which gives an i32 whose bits are set where all is well."""
        c = self.c
        x, out, flag = (
            c.scalar(f"load ptr, ptr {c.at('%a', 'i64', str(slot(part)))}") for part in ("x", "out", "sums")
        )
        well = c.fresh("well")
        c.raw(f"{well} = alloca i32")
        with c.loop("%lo", "%hi") as turn:
            found = c.scalar(f"load i32, ptr {flag}")
            with c.when(c.scalar(f"icmp eq i32 {found}, 0")):
                c.raw(f"store i32 -1, ptr {well}")
                with c.loop("0", str(ROUND // GROUP)) as i:
                    first = c.scalar(f"mul i64 {turn}, {ROUND // GROUP}")
                    fine = step(x, out, c.scalar(f"add i64 {first}, {i}"))
                    if fine is not None:
                        both = c.scalar(f"and i32 {fine}, {c.scalar(f'load i32, ptr {well}')}")
                        c.raw(f"store i32 {both}, ptr {well}")
                wrong = c.scalar(f"icmp ne i32 {c.scalar(f'load i32, ptr {well}')}, -1")
                with c.when(wrong):  # and never 0, which would undo what another thread has found
                    c.raw(f"store i32 1, ptr {flag}")
        return c.module(name, "ptr %a, i64 %lo, i64 %hi, i64 %me")

    def _load(self, pointer: str, element: str, at: str) -> str:
        place = self.c.at(pointer, _vector(element), at)
        return self.c.scalar(f"load {_vector(element)}, ptr {place}, align 1")

    def _store(self, value: str, kind: str, pointer: str, at: str) -> None:
        self.c.raw(f"store {kind} {value}, ptr {self.c.at(pointer, kind, at)}, align 1")

    def _mask(self, text: str) -> str:
        """A comparison of vectors as the bits of an i32."""
        return self.c.scalar(f"bitcast {_vector('i1')} {self.c.scalar(text)} to i32")

    def pack_bits(self, name: str) -> str:
        """A bit for each number that is 0 or 1."""
        element = f"i{self.width}"

        def step(x: str, out: str, at: str) -> str:
            v = self._load(x, element, at)
            ones = self._mask(f"icmp eq {_vector(element)} {v}, {_splat(element, self.one)}")
            zeros = self._mask(f"icmp eq {_vector(element)} {v}, zeroinitializer")
            self._store(ones, "i32", out, at)
            return self.c.scalar(f"or i32 {ones}, {zeros}")

        return self._kernel(name, step)

    def unpack_bits(self, name: str) -> str:
        """The way back."""
        kind = _vector(f"i{self.width}")

        def step(x: str, out: str, at: str) -> None:
            word = self.c.scalar(f"load i32, ptr {self.c.at(x, 'i32', at)}, align 1")
            mask = self.c.scalar(f"bitcast i32 {word} to {_vector('i1')}")
            ones = _splat(f"i{self.width}", self.one)
            v = self.c.scalar(f"select {_vector('i1')} {mask}, {kind} {ones}, {kind} zeroinitializer")
            self._store(v, kind, out, at)

        return self._kernel(name, step)

    def pack_bytes(self, name: str) -> str:
        """A byte for each number that is a multiple of 1/4 from 0 to 63.75."""
        c, f, i = self.c, _vector("float"), _vector("i32")

        def step(x: str, out: str, at: str) -> str:
            v = self._load(x, "float", at)
            grown = c.scalar(f"fmul {f} {v}, {_splat('float', QUARTER)}")
            # what lies outside of integers gives any integer, and is found out below
            whole = c.scalar(f"freeze {i} {c.scalar(f'fptosi {f} {grown} to {i}')}")
            back = c.scalar(f"sitofp {i} {whole} to {f}")
            back = c.scalar(f"fmul {f} {back}, {_splat('float', 1 / QUARTER)}")
            bits, same = (c.scalar(f"bitcast {f} {value} to {i}") for value in (v, back))
            equal = self._mask(f"icmp eq {i} {bits}, {same}")
            small = self._mask(f"icmp ult {i} {whole}, {_splat('i32', 256)}")
            byte = c.scalar(f"trunc {i} {whole} to {_vector('i8')}")
            self._store(byte, _vector("i8"), out, at)
            return c.scalar(f"and i32 {equal}, {small}")

        return self._kernel(name, step)

    def unpack_bytes(self, name: str) -> str:
        """The way back."""
        c, f, i = self.c, _vector("float"), _vector("i32")

        def step(x: str, out: str, at: str) -> None:
            whole = c.scalar(f"zext {_vector('i8')} {self._load(x, 'i8', at)} to {i}")
            v = c.scalar(f"sitofp {i} {whole} to {f}")
            v = c.scalar(f"fmul {f} {v}, {_splat('float', 1 / QUARTER)}")
            self._store(v, f, out, at)

        return self._kernel(name, step)


@cache
def _kernel(kind: str, dtype: torch.dtype) -> tuple[int, Any]:
    return compiled(getattr(_Packer(8 * dtype.itemsize, ONE[dtype]), kind))


def _run(kind: str, dtype: torch.dtype, x: Tensor, out: Tensor, numbers: int) -> bool:
    arguments = Arguments()
    flag = torch.zeros(1, dtype=torch.int32)
    arguments.x, arguments.out, arguments.sums = x.data_ptr(), out.data_ptr(), flag.data_ptr()
    rounds = numbers // ROUND
    share(_kernel(kind, dtype), arguments, rounds, team_size(numbers, rounds), 1)
    return not flag.item()


def pack(x: Tensor) -> tuple[Tensor, int] | None:
    """See `spiking.kernels.bits.pack`; numbers of 16 bits are packed as bits alone."""
    found = torch.empty(x.numel() // 8, dtype=torch.uint8)
    if _run("pack_bits", x.dtype, x, found, x.numel()):
        return found, 1
    if x.dtype is torch.float32:
        found = torch.empty(x.numel(), dtype=torch.uint8)
        if _run("pack_bytes", x.dtype, x, found, x.numel()):
            return found, 8
    return None


def unpack(packed: Tensor, bits: int, out: Tensor) -> None:
    """See `spiking.kernels.bits.unpack`."""
    _run("unpack_bits" if bits == 1 else "unpack_bytes", out.dtype, packed, out, out.numel())
