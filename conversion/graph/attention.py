"""Fused attention taken apart, so that its operands can become spikes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from conversion.graph.ops import module_path, op_name
from conversion.graph.program import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from conversion.graph.program import Program

ATEN = torch.ops.aten


def split_attention(program: Program) -> None:
    """Turn every fused attention into product, scale, mask, softmax, product, as timm's unfused form has it.

    A mask is added to the scores in front of the softmax; minus infinity stays there, since the softmax sees
    represented values.

    Raises:
        ConversionError: attention with dropout, a causal flag or grouped queries.
    """
    for node in list(program.graph.nodes):
        if node.op == "call_function" and op_name(node.target) == "scaled_dot_product_attention":
            _split(program.graph, node)


def _split(graph: fx.Graph, node: fx.Node) -> None:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    for flag in ("dropout_p", "is_causal", "enable_gqa"):
        if given.get(flag):
            raise ConversionError(
                f"attention at {module_path(node) or node.name!r} uses {flag}={given[flag]}, which has no"
                " conversion rule"
            )
    query, key, value, mask = (given.get(n) for n in ("query", "key", "value", "attn_mask"))
    assert isinstance(query, fx.Node)
    scale = given.get("scale")
    if scale is None:
        scale = float(query.meta["val"].shape[-1]) ** -0.5

    def call(target: Callable[..., Any], *args: Any) -> fx.Node:
        with graph.inserting_before(node):
            new = graph.call_function(target, args)
        values = [a.meta["val"] if isinstance(a, fx.Node) else a for a in args]
        new.meta = {"nn_module_stack": node.meta.get("nn_module_stack"), "val": target(*values)}
        return new

    scores = call(ATEN.matmul.default, query, call(ATEN.transpose.int, key, -2, -1))
    scores = call(ATEN.mul.Tensor, scores, scale)
    if mask is not None:
        assert isinstance(mask, fx.Node)
        if mask.meta["val"].dtype is torch.bool:
            zeros = call(ATEN.zeros_like.default, mask)
            zeros = call(ATEN.to.dtype, zeros, query.meta["val"].dtype)
            mask = call(ATEN.masked_fill.Scalar, zeros, call(ATEN.logical_not.default, mask), float("-inf"))
        scores = call(ATEN.add.Tensor, scores, mask)
    weights = call(ATEN.softmax.int, scores, -1)
    output = call(ATEN.matmul.default, weights, value)
    node.replace_all_uses_with(output)
    graph.erase_node(node)
