"""Vector expressions written as Python, turned into LLVM assembly: the ground under the CPU kernels.

A kernel body is a Python function over `Vec` values. Each operation appends one line of LLVM code over
16 float32 lanes, a width that LLVM splits into whatever registers the machine has. Compiling such a
function takes less than a tenth of a second, needs no compiler and no cache folder: llvmlite carries LLVM
itself. What the text says is what runs: multiply and add are never fused and nothing is reordered, so a
membrane computed here has the same bits as one computed by single torch operations. Where bits do not
matter (gradients), `Code.relaxed` allows fusing.

Text, and not ``llvmlite.ir.IRBuilder``, because that writes the same text from objects: the two kernels of
a LIF layer, 1,036 instructions, take 0.8 ms to write as lines and 14 ms by the builder, which makes the
first call 15 % longer (131 and 150 ms); the machine code is equally fast and has the same bits. The builder
also refuses function attributes that it does not know, such as the preferred width of vectors.
"""

from __future__ import annotations

import contextlib
import math
import struct
from typing import TYPE_CHECKING

from typing_extensions import override

from spiking.kernels.rules import expressions
from spiking.kernels.rules.expressions import Kind, Vec

if TYPE_CHECKING:
    from collections.abc import Iterator

LANES = 16
F = f"<{LANES} x float>"
D = f"<{LANES} x double>"
I32 = f"<{LANES} x i32>"
I16 = f"<{LANES} x i16>"
MASK = f"<{LANES} x i1>"
STORED = {"float32": "float", "bfloat16": "i16", "float16": "half"}  # element types in memory
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

_LOG2E = 1.4426950408889634
# exp(r) on |r| <= ln(2)/2, from the highest power down (Cephes, S. Moshier, single precision)
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)


class Code(expressions.Code):
    """Collects the lines of one kernel.

    Args:
        stored: element type of currents, spikes and their gradients: a key of `STORED`.
        masked: whether only the first lanes, as many as ``%valid`` says, exist in memory.
        stream: whether results bypass the caches (needs 64-byte alignment).
    """

    def __init__(self, stored: str = "float32", masked: bool = False, stream: bool = False) -> None:
        self.stored, self.masked, self.stream = stored, masked, stream
        self.lanes = "%lanes"  # the mask of a masked kernel
        self.lines: list[str] = []
        self.declared: set[str] = set()
        self.flags = ""
        self._count = 0

    # ---- plumbing
    def fresh(self, prefix: str = "r") -> str:
        """A new local name."""
        self._count += 1
        return f"%{prefix}{self._count}"

    def raw(self, text: str) -> None:
        """Appends a line as it is."""
        self.lines.append(text)

    def scalar(self, text: str) -> str:
        """Appends ``name = text`` and returns the name."""
        name = self.fresh("s")
        self.lines.append(f"{name} = {text}")
        return name

    def line(self, text: str, kind: Kind = "number") -> Vec:
        """Appends a vector instruction."""
        return Vec(self, self.scalar(text), kind)

    def relaxed(self) -> contextlib.AbstractContextManager[None]:
        """Within the block multiply and add may fuse and divisions may use reciprocals."""
        return self._flagged("contract arcp ")

    @override
    def exact(self) -> contextlib.AbstractContextManager[None]:
        return self._flagged("")

    @contextlib.contextmanager
    def _flagged(self, flags: str) -> Iterator[None]:
        before, self.flags = self.flags, flags
        try:
            yield
        finally:
            self.flags = before

    # ---- what rules say
    @override
    def as_vec(self, value: Vec | float) -> Vec:
        if isinstance(value, Vec):
            return value
        bits = _float_text(value)
        return Vec(self, "<" + ", ".join([f"float {bits}"] * LANES) + ">")

    @override
    def binary(self, op: str, a: Vec | float, b: Vec | float) -> Vec:
        return self.line(f"f{op} {self.flags}{F} {self.as_vec(a).name}, {self.as_vec(b).name}")

    @override
    def negate(self, a: Vec) -> Vec:
        return self.line(f"fneg {F} {a.name}")

    @override
    def compare(self, op: str, a: Vec, b: Vec | float) -> Vec:
        return self.line(f"fcmp o{op} {F} {a.name}, {self.as_vec(b).name}", "truth")

    @override
    def logic(self, op: str, a: Vec, b: Vec) -> Vec:
        return self.line(f"{op} {MASK} {a.name}, {b.name}", "truth")

    @override
    def call(self, function: str, *args: Vec | float) -> Vec:
        names = [f"{F} {self.as_vec(a).name}" for a in args]
        full = f"llvm.{function}.v{LANES}f32"
        self.declared.add(f"declare {F} @{full}({', '.join([F] * len(args))})")
        return self.line(f"call {self.flags}{F} @{full}({', '.join(names)})")

    @override
    def where(self, mask: Vec, a: Vec | float, b: Vec | float) -> Vec:
        x, y = self.as_vec(a).name, self.as_vec(b).name
        return self.line(f"select {MASK} {mask.name}, {F} {x}, {F} {y}")

    @override
    def select(self, mask: Vec, a: Vec, b: Vec) -> Vec:
        return self.line(f"select {MASK} {mask.name}, {I32} {a.name}, {I32} {b.name}", "integer")

    @override
    def exp(self, a: Vec) -> Vec:
        a = self.call("minnum", self.call("maxnum", a, -87.3), 88.3)
        n = self.call("rint", a * _LOG2E)
        r = a - n * 0.693359375
        r = r - n * -2.12194440e-4
        p: Vec = self.as_vec(_EXP[0])
        for coefficient in _EXP[1:]:
            p = p * r + coefficient
        p = p * (r * r) + r + 1.0
        whole = self.scalar(f"fptosi {F} {n.name} to {I32}")
        shifted = self.scalar(f"shl {I32} {whole}, {_splat('i32', 23)}")
        bits = self._bits(p)
        scaled = self.scalar(f"add {I32} {bits}, {shifted}")
        return self._from_bits(scaled)

    @override
    def floor_log2_ratio(self, a: Vec, b: Vec) -> Vec:
        # the bits of positive floats are ordered as the numbers are, and an exponent is a step of 2**23
        apart = self.scalar(f"sub {I32} {self._bits(a)}, {self._bits(b)}")
        return self.line(f"ashr {I32} {apart}, {_splat('i32', 23)}", "integer")

    @override
    def lesser(self, a: Vec, b: Vec | int) -> Vec:
        return self._integer_call("smin", a, b)

    @override
    def power_of_two(self, k: Vec) -> Vec:
        k = self._integer_call("smax", k, 0)
        bits = self.scalar(f"add {I32} {k.name}, {_splat('i32', 127)}")
        return self._from_bits(self.scalar(f"shl {I32} {bits}, {_splat('i32', 23)}"))

    def _bits(self, a: Vec) -> str:
        return self.scalar(f"bitcast {F} {a.name} to {I32}")

    def _from_bits(self, bits: str) -> Vec:
        return self.line(f"bitcast {I32} {bits} to {F}")

    def _integer_call(self, intrinsic: str, a: Vec, b: Vec | int) -> Vec:
        full = f"@llvm.{intrinsic}.v{LANES}i32"
        self.declared.add(f"declare {I32} {full}({I32}, {I32})")
        other = b.name if isinstance(b, Vec) else _splat("i32", b)
        return self.line(f"call {I32} {full}({I32} {a.name}, {I32} {other})", "integer")

    # ---- memory
    def at(self, base: str, element: str, index: str) -> str:
        """The address of ``base[index]``."""
        return self.scalar(f"getelementptr {element}, ptr {base}, i64 {index}")

    def load(self, base: str, index: str, stored: str = "float32") -> Vec:
        """16 numbers from ``base[index:]``, widened to float32."""
        element = STORED[stored]
        kind = f"<{LANES} x {element}>"
        address = self.at(base, element, index)
        bytes_ = ITEM_BYTES[stored]
        if self.masked:
            name = f"@llvm.masked.load.v{LANES}{_suffix(element)}.p0"
            self.declared.add(f"declare {kind} {name}(ptr, i32, {MASK}, {kind})")
            given = f"ptr {address}, i32 {bytes_}, {MASK} {self.lanes}, {kind} zeroinitializer"
            raw = self.scalar(f"call {kind} {name}({given})")
        else:
            raw = self.scalar(f"load {kind}, ptr {address}, align {bytes_}")
        if stored == "float16":
            return self.line(f"fpext {kind} {raw} to {F}")
        if stored == "bfloat16":
            wide = self.scalar(f"zext {I16} {raw} to {I32}")
            return self._from_bits(self.scalar(f"shl {I32} {wide}, {_splat('i32', 16)}"))
        return Vec(self, raw)

    def prefetch(self, address: str) -> None:
        """Asks for memory ahead of its use; harmless where there is none."""
        self.declared.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.raw(f"call void @llvm.prefetch.p0(ptr {address}, i32 0, i32 3, i32 1)")

    def store(self, value: Vec, base: str, index: str, stored: str = "float32", stream: bool = False) -> None:
        """Writes 16 numbers to ``base[index:]``, rounded to the stored type."""
        element = STORED[stored]
        kind = f"<{LANES} x {element}>"
        what = value.name
        if stored == "float16":
            what = self.scalar(f"fptrunc {F} {what} to {kind}")
        elif stored == "bfloat16":
            what = self._to_bfloat16(value)
        address = self.at(base, element, index)
        bytes_ = ITEM_BYTES[stored]
        if self.masked:
            name = f"@llvm.masked.store.v{LANES}{_suffix(element)}.p0"
            self.declared.add(f"declare void {name}({kind}, ptr, i32, {MASK})")
            self.raw(f"call void {name}({kind} {what}, ptr {address}, i32 {bytes_}, {MASK} {self.lanes})")
        elif stream and self.stream:
            self.raw(f"store {kind} {what}, ptr {address}, align {bytes_ * LANES}, !nontemporal !0")
        else:
            self.raw(f"store {kind} {what}, ptr {address}, align {bytes_}")

    def _to_bfloat16(self, value: Vec) -> str:
        """Rounds to nearest even by integer arithmetic, as not every machine has the instruction."""
        bits = self._bits(value)
        high = self.scalar(f"lshr {I32} {bits}, {_splat('i32', 16)}")
        odd = self.scalar(f"and {I32} {high}, {_splat('i32', 1)}")
        bias = self.scalar(f"add {I32} {odd}, {_splat('i32', 0x7FFF)}")
        up = self.scalar(f"add {I32} {bits}, {bias}")
        cut = self.scalar(f"lshr {I32} {up}, {_splat('i32', 16)}")
        nan = self.scalar(f"fcmp uno {F} {value.name}, {value.name}")
        safe = self.scalar(f"select {MASK} {nan}, {I32} {_splat('i32', 0x7FC0)}, {I32} {cut}")
        return self.scalar(f"trunc {I32} {safe} to {I16}")

    # ---- sums
    def masked_lanes(self, count: str) -> str:
        """The mask whose first ``count`` lanes (an i64 from 0 to 16) are set."""
        few = self.scalar(f"trunc i64 {count} to i32")
        order = "<" + ", ".join(f"i32 {i}" for i in range(LANES)) + ">"
        one = self.scalar(f"insertelement {I32} poison, i32 {few}, i64 0")
        all_ = self.scalar(f"shufflevector {I32} {one}, {I32} poison, {I32} {_splat('i32', 0)}")
        return self.scalar(f"icmp slt {I32} {order}, {all_}")

    def existing(self, value: Vec) -> Vec:
        """``value``, with 0 in the lanes that do not exist in memory."""
        if not self.masked:
            return value
        return self.line(f"select {MASK} {self.lanes}, {F} {value.name}, {F} zeroinitializer")

    def widen(self, value: Vec) -> str:
        """The 16 numbers in double precision, which `add_doubles` takes."""
        return self.scalar(f"fpext {F} {value.name} to {D}")

    def total(self, value: Vec) -> str:
        """The sum of all lanes as a double."""
        name = f"@llvm.vector.reduce.fadd.v{LANES}f64"
        self.declared.add(f"declare double {name}(double, {D})")
        return self.scalar(f"call reassoc double {name}(double -0.0, {D} {self.widen(value)})")

    def add_double(self, base: str, index: str, value: str) -> None:
        """Adds one double to ``base[index]``."""
        address = self.at(base, "double", index)
        old = self.scalar(f"load double, ptr {address}")
        self.raw(f"store double {self.scalar(f'fadd double {old}, {value}')}, ptr {address}")

    def add_doubles(self, base: str, index: str, value: str) -> None:
        """Adds 16 doubles to ``base[index:]``, whole also in a masked kernel."""
        address = self.at(base, "double", index)
        old = self.scalar(f"load {D}, ptr {address}, align 8")
        self.raw(f"store {D} {self.scalar(f'fadd {D} {old}, {value}')}, ptr {address}, align 8")

    def broadcast(self, scalar: str) -> Vec:
        """One float in all lanes."""
        one = self.scalar(f"insertelement {F} poison, float {scalar}, i64 0")
        return self.line(f"shufflevector {F} {one}, {F} poison, {I32} {_splat('i32', 0)}")

    # ---- control
    @contextlib.contextmanager
    def loop(self, start: str, stop: str, step: int = 1, down: bool = False) -> Iterator[str]:
        """``for i in range(start, stop, step)``, or the same backwards; yields the name of ``i``."""
        head, body, after = (self.fresh(k)[1:] for k in ("head", "body", "after"))
        slot = self.fresh("i")
        self.raw(f"{slot} = alloca i64")
        self.raw(f"store i64 {start}, ptr {slot}")
        self.raw(f"br label %{head}")
        self.raw(f"{head}:")
        i = self.scalar(f"load i64, ptr {slot}")
        more = self.scalar(f"icmp slt i64 {i}, {stop}")
        self.raw(f"br i1 {more}, label %{body}, label %{after}")
        self.raw(f"{body}:")
        index = i
        if down:  # i runs up, the index handed out runs from stop - step down to start
            last = self.scalar(f"sub i64 {stop}, {step}")
            gone = self.scalar(f"sub i64 {i}, {start}")
            index = self.scalar(f"sub i64 {last}, {gone}")
        yield index
        new = self.scalar(f"add nsw i64 {i}, {step}")
        self.raw(f"store i64 {new}, ptr {slot}")
        self.raw(f"br label %{head}")
        self.raw(f"{after}:")

    @contextlib.contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """``if condition:``."""
        then, after = (self.fresh(k)[1:] for k in ("then", "endif"))
        self.raw(f"br i1 {condition}, label %{then}, label %{after}")
        self.raw(f"{then}:")
        yield
        self.raw(f"br label %{after}")
        self.raw(f"{after}:")

    def module(self, name: str, arguments: str) -> str:
        """The whole as LLVM assembly with one function ``void name(arguments)``."""
        body = "\n  ".join(_hoist(self.lines))
        declared = "\n".join(sorted(self.declared))
        return (
            f"define void @{name}({arguments}) #0 {{\nentry:\n  {body}\n  ret void\n}}\n{declared}\n"
            'attributes #0 = { nounwind "prefer-vector-width"="512" "no-trapping-math"="true" }\n'
            "!0 = !{i32 1}\n"
        )


def _hoist(lines: list[str]) -> list[str]:
    """Moves stack slots to the entry, where LLVM turns them into registers."""
    slots = [x for x in lines if " = alloca " in x]
    return slots + [x for x in lines if " = alloca " not in x]


def _splat(element: str, value: int) -> str:
    return "<" + ", ".join([f"{element} {value}"] * LANES) + ">"


def _suffix(element: str) -> str:
    return {"float": "f32", "i16": "i16", "half": "f16"}[element]


def _float_text(value: float) -> str:
    """LLVM writes a float as the bits of the double that equals it."""
    single = struct.unpack("f", struct.pack("f", value))[0] if math.isfinite(value) else value
    return f"0x{struct.unpack('<Q', struct.pack('<d', single))[0]:016X}"
