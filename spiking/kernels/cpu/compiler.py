"""LLVM for the machine at hand, through llvmlite: from assembly to a function that Python can call."""

from __future__ import annotations

import ctypes
import platform
import threading
from functools import cache
from typing import Any

import llvmlite.binding as llvm


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
