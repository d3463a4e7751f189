"""Exported graphs that need not be traced again: the few operations that are not functional, one by one.

``ExportedProgram.run_decompositions`` traces a program anew, several times over, to make it functional, and
takes longer than the export. Most networks need no more of it than ``relu_`` written as ``relu``.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch._C import DispatchKey
from torch._ops import OpOverload

from conversion.graph.ops import has_rule, is_integer, op_name
from conversion.graph.tables import names

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.export import ExportedProgram

ATEN = torch.ops.aten
# Composite operators that torch would take apart; their results are new tensors all the same.
NEW = names(
    "conv1d conv2d conv3d batch_norm linear matmul layer_norm group_norm max_pool2d adaptive_avg_pool2d"
)


def directly(program: ExportedProgram) -> fx.GraphModule | None:
    """The functional graph of ``program``, as tracing it again gives it; None where only that can.

    What is in place becomes out of place only if nobody can see the difference.
    """
    module = program.module(check_guards=False)
    for node in list(module.graph.nodes):
        if node.op != "call_function" or is_integer(node) or _stays(node):
            continue
        rewrite = REWRITES.get(op_name(node.target), _out_of_place)
        if not rewrite(node):
            return None
    return module


def _stays(node: fx.Node) -> bool:
    """Whether torch leaves an operation as it is when it makes a graph functional, and a rule covers it."""
    target = node.target
    if target is operator.getitem:
        return True
    if not isinstance(target, OpOverload) or not has_rule(target) or target._schema.is_mutable:
        return False
    if op_name(target) == "batch_norm":
        return not node.args[5]
    return not _is_composite(target) or not _shares_memory(target)


def _is_composite(target: OpOverload) -> bool:
    return target.has_kernel_for_dispatch_key(DispatchKey.CompositeImplicitAutograd)


def _shares_memory(target: OpOverload) -> bool:
    """Whether results are views of operands."""
    values = (*target._schema.arguments, *target._schema.returns)
    return any(value.alias_info is not None for value in values)


def _out_of_place(node: fx.Node) -> bool:
    """``relu_`` as ``relu``, of a tensor that was made for it and that nothing else uses."""
    target, value = node.target, node.args[0] if node.args else None
    if not isinstance(target, OpOverload) or not isinstance(value, fx.Node):
        return False
    base = op_name(target).removesuffix("_")
    twin = getattr(getattr(ATEN, base, None), target._overloadname, None)
    if not target._schema.is_mutable or base == op_name(target) or twin is None or not has_rule(twin):
        return False
    operands = [operand.meta.get("val") for operand in node.all_input_nodes]
    dtypes = {x.dtype for x in operands if isinstance(x, torch.Tensor)}
    if not _is_new(value) or len(value.users) > 1 or len(dtypes) > 1:
        return False
    node.target = twin
    return True


def _is_new(node: fx.Node) -> bool:
    """Whether a value shares its memory with no other."""
    target = node.target
    if node.op != "call_function" or not isinstance(target, OpOverload):
        return False
    return not _shares_memory(target) and (not _is_composite(target) or op_name(target) in NEW)


def _reshaped(node: fx.Node) -> bool:
    """``flatten`` and ``reshape`` with the sizes of the result, if these are numbers and the batch."""
    graph = node.graph
    image = next(n for n in graph.nodes if n.op == "placeholder")
    sizes: list[Any] = list(node.meta["val"].shape)
    symbols = [i for i, size in enumerate(sizes) if not isinstance(size, int)]
    batch = image.meta["val"].shape[0]
    if any(sizes[i].node.expr != batch.node.expr for i in symbols):
        return False
    if symbols:
        given = image.next  # behind the images, where the last call put it
        if given.target is not ATEN.sym_size.int:
            with graph.inserting_after(image):
                given = graph.call_function(ATEN.sym_size.int, (image, 0))
            given.meta["val"] = batch
        sizes = [given if i in symbols else size for i, size in enumerate(sizes)]
    node.target, node.args, node.kwargs = ATEN.reshape.default, (node.args[0], sizes), {}
    return True


def _without_dropout(node: fx.Node) -> bool:
    """Nothing in place of a dropout that is switched off."""
    return not node.args[2] and _left_out(node)


def _left_out(node: fx.Node) -> bool:
    """The operand itself, which has the same values."""
    value = node.args[0]
    assert isinstance(value, fx.Node)
    node.replace_all_uses_with(value)
    node.graph.erase_node(node)
    return True


REWRITES: dict[str, Callable[[fx.Node], bool]] = {
    "flatten": _reshaped,
    "reshape": _reshaped,
    "dropout": _without_dropout,
    "contiguous": _left_out,
}
