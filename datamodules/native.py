"""Machine code from LLVM's text; LLVM comes with llvmlite and needs no C compiler."""

from __future__ import annotations

import ctypes
from typing import Any

import llvmlite.binding as llvm


def compile_function(text: str, name: str, *arguments: Any) -> tuple[Any, Any]:
    """A function of a module, for this processor.

    Args:
        text: the module in LLVM's language.
        name: of the function, which returns nothing.
        arguments: its types, of `ctypes`.

    Returns:
        The function, which lets go of the interpreter's lock while it runs, and what keeps its code alive.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2, jit=True
    )
    module = llvm.parse_assembly(text)
    module.verify()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(module, passes)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return ctypes.CFUNCTYPE(None, *arguments)(engine.get_function_address(name)), engine
