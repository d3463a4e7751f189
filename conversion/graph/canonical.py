"""One form for operations that an exported graph writes in several ways."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from conversion.graph.ops import op_name

if TYPE_CHECKING:
    from collections.abc import Callable

ATEN = torch.ops.aten


def canonical(graph: fx.Graph) -> None:
    """Bring views, casts, norms and fused sums of ``graph`` to forms that conversion has rules for."""
    _plain_views(graph)
    _plain_types(graph)
    _single_norms(graph)
    _split_sums(graph)


def _plain_views(graph: fx.Graph) -> None:
    """``view`` assumes the strides of the traced program, which change when units are put in."""
    for node in graph.nodes:
        if node.op == "call_function" and op_name(node.target) in ("view", "_unsafe_view"):
            node.target = ATEN.reshape.default


def _plain_types(graph: fx.Graph) -> None:
    """``type_as`` takes nothing of its second operand but the dtype, which is known."""
    for node in list(graph.nodes):
        if node.op != "call_function" or op_name(node.target) != "type_as":
            continue
        source, dtype = node.args[0], node.meta["val"].dtype
        if source.meta["val"].dtype != dtype:
            with graph.inserting_before(node):
                cast = graph.call_function(ATEN._to_copy.default, (source,), {"dtype": dtype})
            cast.meta = node.meta
            source = cast
        node.replace_all_uses_with(source)
        graph.erase_node(node)


def _single_norms(graph: fx.Graph) -> None:
    """Norms that give (output, statistics...) of which only the output is used: one node each."""
    for node in list(graph.nodes):
        if node.target is not operator.getitem or node.args[1] != 0:
            continue
        source = node.args[0]
        rule = SINGLE.get(op_name(source.target)) if isinstance(source, fx.Node) else None
        if rule is None:
            continue
        target, args = rule(*source.args)
        with graph.inserting_before(source):
            single = graph.call_function(target, args)
        single.meta = {**source.meta, "val": node.meta["val"]}
        node.replace_all_uses_with(single)
        graph.erase_node(node)
        if not source.users:
            graph.erase_node(source)


def _split_sums(graph: fx.Graph) -> None:
    """``beta c + alpha a b``, which attention with a mask is written with: a product and a sum."""
    for node in list(graph.nodes):
        if node.op != "call_function" or op_name(node.target) not in FUSED:
            continue
        added, left, right = node.args[:3]

        def call(target: Any, *args: Any, node: fx.Node = node) -> fx.Node:
            with graph.inserting_before(node):
                new = graph.call_function(target, args)
            new.meta = dict(node.meta)
            return new

        total = call(FUSED[op_name(node.target)], left, right)
        if (alpha := node.kwargs.get("alpha", 1)) != 1:
            total = call(ATEN.mul.Tensor, total, alpha)
        if beta := node.kwargs.get("beta", 1):
            total = call(ATEN.add.Tensor, total, added) if beta == 1 else _scaled(call, total, added, beta)
        node.replace_all_uses_with(total)
        graph.erase_node(node)


def _scaled(call: Callable[..., fx.Node], total: fx.Node, added: Any, beta: Any) -> fx.Node:
    scaled = call(ATEN.mul.Tensor, added, beta)
    scaled.meta["val"] = added.meta["val"]
    return call(ATEN.add.Tensor, total, scaled)


FUSED = {"baddbmm": ATEN.bmm.default, "addmm": ATEN.mm.default}
Call = tuple[Any, tuple[Any, ...]]  # an operator and its arguments


def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float) -> Call:
    return ATEN.batch_norm.default, (x, weight, bias, mean, var, False, momentum, eps, False)


def _layer_norm(*args: Any) -> Call:
    return ATEN.layer_norm.default, args


def _group_norm(x: Any, weight: Any, bias: Any, _n: Any, _c: Any, _hw: Any, groups: int, eps: float) -> Call:
    return ATEN.group_norm.default, (x, groups, weight, bias, eps)


SINGLE: dict[str, Callable[..., Call]] = {
    "_native_batch_norm_legit_no_training": _batch_norm,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
}
