"""Operators without a rule taken apart into those that have one, by torch's own decompositions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.export import default_decompositions

from conversion.graph.directly import directly
from conversion.graph.ops import has_rule

if TYPE_CHECKING:
    from torch import fx
    from torch.export import ExportedProgram


def decomposed(program: ExportedProgram) -> fx.GraphModule:
    """The functional graph of ``program``, each operator as it is if it has a rule.

    Aliases such as ``multiply`` become one operator, distances their formulas, and recurrent layers (LSTM,
    GRU, RNN) are unrolled over their sequence. What torch cannot take apart either stays.
    """
    if (module := directly(program)) is not None:
        return module
    program = program.run_decompositions({})
    table = default_decompositions().materialize()  # what is asked of it otherwise takes most of a second
    while True:
        found = [n.target for n in program.graph.nodes if n.op == "call_function"]
        missing = {
            t for t in found if isinstance(t, torch._ops.OpOverload) and not has_rule(t) and t in table
        }
        if not missing:
            break
        program = program.run_decompositions({target: table[target] for target in missing})
        left = {n.target for n in program.graph.nodes if n.op == "call_function"} & missing
        if left == missing:
            break
    return program.module(check_guards=False)
