"""What each operation of a program is in NIR, or why it is nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from conversion.graph.ops import op_name
from conversion.graph.program import attribute
from zoo.export.nir.graph import Signal
from zoo.export.nir.layers import STATISTICS, conv, linear, neuron, norm
from zoo.export.nir.one_step import NEURON
from zoo.export.nir.shapes import adaptive_avg_pool2d, alias, avg_pool2d

if TYPE_CHECKING:
    from zoo.export.nir.graph import Rule, Writer

ATTENTION = "it multiplies two signals, as attention does; NIR has sums and fixed weights only"
GATING = "it multiplies two signals; NIR has sums and fixed weights only"
MAXIMUM = "NIR has average and sum pooling, and no maximum"
ACTIVATION = "NIR has neurons, and no other activation functions"
REASONS = {
    **dict.fromkeys(["max_pool1d", "max_pool2d", "max_pool2d_with_indices", "adaptive_max_pool2d"], MAXIMUM),
    **dict.fromkeys(["matmul", "bmm", "mm", "einsum", "scaled_dot_product_attention"], ATTENTION),
    **dict.fromkeys(["softmax", "_softmax"], ATTENTION),
    **dict.fromkeys(["layer_norm", "group_norm", "instance_norm", "rms_norm"], STATISTICS),
    **dict.fromkeys(["relu", "gelu", "silu", "sigmoid", "tanh", "hardtanh", "clamp"], ACTIVATION),
    **dict.fromkeys(["elu", "leaky_relu"], ACTIVATION),
    "rsub": "it subtracts a signal from a constant; NIR adds signals",
    **dict.fromkeys(("cat", "stack"), "NIR has no concatenation"),
}  # fmt: skip
ALIASES = frozenset(
    [
        "reshape",
        "view",
        "flatten",
        "unflatten",
        "unsqueeze",
        "squeeze",
        "expand",
        "select",
        "clone",
        "contiguous",
        "alias",
        "detach",
        "dropout",
        "slice",
        "movedim",
        "permute",
        "transpose",
        "mean",
        "_to_copy",
        "to",
        "lift_fresh_copy",
        "identity",
    ]
)


def _add(writer: Writer, node: fx.Node, signal: Signal) -> Signal:
    first, second = node.args[:2]
    alpha = float(node.kwargs.get("alpha", 1))  # type: ignore[arg-type]
    sign = -1.0 if op_name(node.target) == "sub" else 1.0
    for operand in (first, second):
        if operand not in writer.signals:
            raise writer.refuse(node, "it adds a constant; NIR adds signals")
    one, other = writer.signals[first], writer.signals[second]  # type: ignore[index]
    if one.shape != other.shape:
        raise writer.refuse(node, f"it adds {other.shape} to {one.shape}; NIR adds equal shapes")
    total: dict[str, float] = dict(one.sources)
    for name, factor in other.sources:
        total[name] = total.get(name, 0.0) + sign * alpha * factor
    return Signal(tuple(total.items()), one.shape)


def _mul(writer: Writer, node: fx.Node, signal: Signal) -> Signal:
    first, second = node.args[:2]
    both = first in writer.signals and second in writer.signals
    if both or (op_name(node.target) == "div" and second in writer.signals):
        raise writer.refuse(node, GATING)
    factor = _constant(writer, second if first in writer.signals else first)
    if factor is None or writer.shape(node) != signal.shape:
        raise writer.refuse(node, "it multiplies by several numbers; only one factor is written")
    factor = 1.0 / factor if op_name(node.target) == "div" else factor
    return replace(signal, sources=tuple((name, own * factor) for name, own in signal.sources))


def _constant(writer: Writer, value: Any) -> float | None:
    """The number that an operand is, None if it is several."""
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, fx.Node) and value.op == "get_attr":
        held = attribute(writer.program.root, str(value.target))
        if isinstance(held, Tensor) and held.numel() and bool((held == held.reshape(-1)[0]).all()):
            return float(held.reshape(-1)[0])
    return None


RULES: dict[str, Rule] = {
    **dict.fromkeys(ALIASES, alias),
    NEURON: neuron,
    "add": _add,
    "sub": _add,
    "mul": _mul,
    "div": _mul,
    "avg_pool2d": avg_pool2d,
    "adaptive_avg_pool2d": adaptive_avg_pool2d,
    "_adaptive_avg_pool2d": adaptive_avg_pool2d,
    "Conv1d": conv,
    "Conv2d": conv,
    "Linear": linear,
    "BatchNorm1d": norm,
    "BatchNorm2d": norm,
}


def reason(kind: str) -> str:
    """Why there is no rule."""
    return REASONS.get(kind, "NIR has no node for it")
