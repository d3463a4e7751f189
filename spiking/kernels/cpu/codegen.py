"""Vector expressions written as Python, compiled by LLVM: the ground under the CPU kernels.

A kernel body is a Python function over `Vec` values. Each operation appends one line of LLVM code over
16 float32 lanes, a width that LLVM splits into whatever registers the machine has. Compiling such a
function takes some 20 ms, needs no compiler and no cache folder: llvmlite carries LLVM itself. What the
text says is what runs: multiply and add are never fused and nothing is reordered, so a membrane
computed here has the same bits as one computed by single torch operations. Where bits do not matter
(gradients), `Code.relaxed` allows fusing.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import platform
import struct
import threading
from functools import cache
from typing import TYPE_CHECKING, Any

import llvmlite.binding as llvm

if TYPE_CHECKING:
    from collections.abc import Iterator

LANES = 16
F = f"<{LANES} x float>"
I32 = f"<{LANES} x i32>"
I16 = f"<{LANES} x i16>"
MASK = f"<{LANES} x i1>"
STORED = {"float32": "float", "bfloat16": "i16", "float16": "half"}  # element types in memory
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

_LOG2E = 1.4426950408889634
# exp(r) on |r| <= ln(2)/2, from the highest power down (Cephes, S. Moshier, single precision)
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)


class Vec:
    """One value of 16 lanes: numbers (``kind`` is `F`), truth values (`MASK`) or integers (`I32`)."""

    __slots__ = ("code", "kind", "name")

    def __init__(self, code: Code, name: str, kind: str = F) -> None:
        self.code, self.name, self.kind = code, name, kind

    def __add__(self, other: Vec | float) -> Vec:
        return self.code.binary("fadd", self, other)

    def __radd__(self, other: float) -> Vec:
        return self.code.binary("fadd", other, self)

    def __sub__(self, other: Vec | float) -> Vec:
        return self.code.binary("fsub", self, other)

    def __rsub__(self, other: float) -> Vec:
        return self.code.binary("fsub", other, self)

    def __mul__(self, other: Vec | float) -> Vec:
        return self.code.binary("fmul", self, other)

    def __rmul__(self, other: float) -> Vec:
        return self.code.binary("fmul", other, self)

    def __truediv__(self, other: Vec | float) -> Vec:
        return self.code.binary("fdiv", self, other)

    def __rtruediv__(self, other: float) -> Vec:
        return self.code.binary("fdiv", other, self)

    def __neg__(self) -> Vec:
        return self.code.line(F, f"fneg {F} {self.name}")

    def __ge__(self, other: Vec | float) -> Vec:
        return self.code.compare("oge", self, other)

    def __gt__(self, other: Vec | float) -> Vec:
        return self.code.compare("ogt", self, other)

    def __le__(self, other: Vec | float) -> Vec:
        return self.code.compare("ole", self, other)

    def __lt__(self, other: Vec | float) -> Vec:
        return self.code.compare("olt", self, other)

    def __and__(self, other: Vec) -> Vec:
        return self.code.line(MASK, f"and {MASK} {self.name}, {other.name}")

    def __or__(self, other: Vec) -> Vec:
        return self.code.line(MASK, f"or {MASK} {self.name}, {other.name}")


class Code:
    """Collects the lines of one kernel.

    Args:
        stored: element type of currents, spikes and their gradients: a key of `STORED`.
        masked: whether only the first lanes, as many as ``%valid`` says, exist in memory.
        stream: whether results bypass the caches (needs 64-byte alignment).
    """

    def __init__(self, stored: str = "float32", masked: bool = False, stream: bool = False) -> None:
        self.stored, self.masked, self.stream = stored, masked, stream
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

    def line(self, kind: str, text: str) -> Vec:
        """Appends a vector instruction."""
        name = self.fresh()
        self.lines.append(f"{name} = {text}")
        return Vec(self, name, kind)

    @contextlib.contextmanager
    def relaxed(self) -> Iterator[None]:
        """Within the block multiply and add may fuse and divisions may use reciprocals."""
        before, self.flags = self.flags, "contract arcp "
        try:
            yield
        finally:
            self.flags = before

    def as_vec(self, value: Vec | float) -> Vec:
        """A constant as a vector; vectors pass through."""
        if isinstance(value, Vec):
            return value
        bits = _float_text(value)
        return Vec(self, "<" + ", ".join([f"float {bits}"] * LANES) + ">")

    def binary(self, op: str, a: Vec | float, b: Vec | float) -> Vec:
        """Arithmetic on two values."""
        return self.line(F, f"{op} {self.flags}{F} {self.as_vec(a).name}, {self.as_vec(b).name}")

    def compare(self, op: str, a: Vec, b: Vec | float) -> Vec:
        """Ordered comparison: false where either side is NaN."""
        return self.line(MASK, f"fcmp {op} {F} {a.name}, {self.as_vec(b).name}")

    def call(self, intrinsic: str, *args: Vec | float) -> Vec:
        """A floating-point intrinsic such as ``fabs`` over vectors."""
        names = [f"{F} {self.as_vec(a).name}" for a in args]
        full = f"llvm.{intrinsic}.v{LANES}f32"
        self.declared.add(f"declare {F} @{full}({', '.join([F] * len(args))})")
        return self.line(F, f"call {self.flags}{F} @{full}({', '.join(names)})")

    # ---- mathematics
    def where(self, mask: Vec, a: Vec | float, b: Vec | float) -> Vec:
        """``a`` where the mask holds, else ``b``."""
        x, y = self.as_vec(a).name, self.as_vec(b).name
        return self.line(F, f"select {MASK} {mask.name}, {F} {x}, {F} {y}")

    def select(self, mask: Vec, a: Vec, b: Vec) -> Vec:
        """`where` for integers."""
        return self.line(I32, f"select {MASK} {mask.name}, {I32} {a.name}, {I32} {b.name}")

    def abs(self, a: Vec) -> Vec:
        """Absolute value."""
        return self.call("fabs", a)

    def exp(self, a: Vec) -> Vec:
        """``e**a`` to about one unit in the last place, 0 below -87."""
        a = self.call("minnum", self.call("maxnum", a, -87.3), 88.3)
        n = self.call("rint", a * _LOG2E)
        r = a - n * 0.693359375
        r = r - n * -2.12194440e-4
        p: Vec = self.as_vec(_EXP[0])
        for coefficient in _EXP[1:]:
            p = p * r + coefficient
        p = p * (r * r) + r + 1.0
        whole = self.line(I32, f"fptosi {F} {n.name} to {I32}")
        shifted = self.line(I32, f"shl {I32} {whole.name}, {_splat('i32', 23)}")
        bits = self.line(I32, f"bitcast {F} {p.name} to {I32}")
        scaled = self.line(I32, f"add {I32} {bits.name}, {shifted.name}")
        return self.line(F, f"bitcast {I32} {scaled.name} to {F}")

    def sigmoid(self, a: Vec) -> Vec:
        """``1 / (1 + e**-a)``."""
        return 1.0 / (self.exp(-a) + 1.0)

    def octaves(self, a: Vec, b: Vec) -> Vec:
        """``floor(log2(a / b))`` of positive numbers as integers (``kind`` is `I32`), exactly.

        The bits of positive floats are ordered as the numbers are, and an exponent is a step of 2**23.
        """
        high, low = (self.line(I32, f"bitcast {F} {v.name} to {I32}") for v in (a, b))
        apart = self.line(I32, f"sub {I32} {high.name}, {low.name}")
        return self.line(I32, f"ashr {I32} {apart.name}, {_splat('i32', 23)}")

    def lesser(self, a: Vec, b: Vec | int) -> Vec:
        """The smaller of two integers."""
        return self._integer_call("smin", a, b)

    def power_of_two(self, k: Vec) -> Vec:
        """``2.0**k`` of an integer from 0 to 127; 1 for negative ones."""
        k = self._integer_call("smax", k, 0)
        bits = self.line(I32, f"add {I32} {k.name}, {_splat('i32', 127)}")
        bits = self.line(I32, f"shl {I32} {bits.name}, {_splat('i32', 23)}")
        return self.line(F, f"bitcast {I32} {bits.name} to {F}")

    def _integer_call(self, intrinsic: str, a: Vec, b: Vec | int) -> Vec:
        full = f"@llvm.{intrinsic}.v{LANES}i32"
        self.declared.add(f"declare {I32} {full}({I32}, {I32})")
        other = b.name if isinstance(b, Vec) else _splat("i32", b)
        return self.line(I32, f"call {I32} {full}({I32} {a.name}, {I32} {other})")

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
            raw = self.line(
                kind,
                f"call {kind} {name}(ptr {address}, i32 {bytes_}, {MASK} %lanes, {kind} zeroinitializer)",
            )
        else:
            raw = self.line(kind, f"load {kind}, ptr {address}, align {bytes_}")
        if stored == "float16":
            return self.line(F, f"fpext {kind} {raw.name} to {F}")
        if stored == "bfloat16":
            wide = self.line(I32, f"zext {I16} {raw.name} to {I32}")
            high = self.line(I32, f"shl {I32} {wide.name}, {_splat('i32', 16)}")
            return self.line(F, f"bitcast {I32} {high.name} to {F}")
        return raw

    def prefetch(self, address: str) -> None:
        """Asks for memory ahead of its use; harmless where there is none."""
        self.declared.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.raw(f"call void @llvm.prefetch.p0(ptr {address}, i32 0, i32 3, i32 1)")

    def store(self, value: Vec, base: str, index: str, stored: str = "float32", stream: bool = False) -> None:
        """Writes 16 numbers to ``base[index:]``, rounded to the stored type."""
        element = STORED[stored]
        kind = f"<{LANES} x {element}>"
        if stored == "float16":
            value = self.line(kind, f"fptrunc {F} {value.name} to {kind}")
        elif stored == "bfloat16":
            value = self._to_bfloat16(value)
        address = self.at(base, element, index)
        bytes_ = ITEM_BYTES[stored]
        if self.masked:
            name = f"@llvm.masked.store.v{LANES}{_suffix(element)}.p0"
            self.declared.add(f"declare void {name}({kind}, ptr, i32, {MASK})")
            self.raw(f"call void {name}({kind} {value.name}, ptr {address}, i32 {bytes_}, {MASK} %lanes)")
        elif stream and self.stream:
            align = bytes_ * LANES
            self.raw(f"store {kind} {value.name}, ptr {address}, align {align}, !nontemporal !0")
        else:
            self.raw(f"store {kind} {value.name}, ptr {address}, align {bytes_}")

    def _to_bfloat16(self, value: Vec) -> Vec:
        """Rounds to nearest even by integer arithmetic, as not every machine has the instruction."""
        bits = self.line(I32, f"bitcast {F} {value.name} to {I32}")
        high = self.line(I32, f"lshr {I32} {bits.name}, {_splat('i32', 16)}")
        odd = self.line(I32, f"and {I32} {high.name}, {_splat('i32', 1)}")
        bias = self.line(I32, f"add {I32} {odd.name}, {_splat('i32', 0x7FFF)}")
        up = self.line(I32, f"add {I32} {bits.name}, {bias.name}")
        cut = self.line(I32, f"lshr {I32} {up.name}, {_splat('i32', 16)}")
        nan = self.line(MASK, f"fcmp uno {F} {value.name}, {value.name}")
        safe = self.line(I32, f"select {MASK} {nan.name}, {I32} {_splat('i32', 0x7FC0)}, {I32} {cut.name}")
        return self.line(I16, f"trunc {I32} {safe.name} to {I16}")

    def broadcast(self, scalar: str) -> Vec:
        """One float in all lanes."""
        one = self.line(F, f"insertelement {F} poison, float {scalar}, i64 0")
        zeros = _splat("i32", 0)
        return self.line(F, f"shufflevector {F} {one.name}, {F} poison, {I32} {zeros}")

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


class _Compiler:
    """LLVM for the machine at hand; one for the process."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.features = llvm.get_host_cpu_features()
        target = llvm.Target.from_default_triple()
        self.machine = target.create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=self.features.flatten(), opt=2, jit=True
        )
        empty = llvm.parse_assembly("")
        empty.triple = target.triple
        self.engine = llvm.create_mcjit_compiler(empty, self.machine)
        self.lock = threading.Lock()

    def function(self, name: str, text: str) -> int:
        """Compiles ``text`` and returns the address of the function ``name``."""
        with self.lock:
            module = llvm.parse_assembly(text)
            module.verify()
            options = llvm.create_pipeline_tuning_options(speed_level=2)
            builder = llvm.create_pass_builder(self.machine, options)
            builder.getModulePassManager().run(module, builder)
            self.engine.add_module(module)
            self.engine.finalize_object()
            return int(self.engine.get_function_address(name))


@cache
def compiler() -> _Compiler:
    """The compiler of this process, made at the first use."""
    return _Compiler()


@cache
def has_float16() -> bool:
    """Whether the machine converts half precision by itself (else LLVM calls a missing library)."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return True
    return bool(compiler().features.get("f16c", False))


def bind(address: int, *argtypes: Any) -> Any:
    """The function at ``address`` as a Python callable that releases the interpreter lock."""
    return ctypes.CFUNCTYPE(None, *argtypes)(address)
