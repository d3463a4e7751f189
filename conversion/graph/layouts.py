"""Where each tensor of a program holds the batch, followed through the operations that move axes."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from conversion.graph.ops import is_filled, module_path, op_name
from conversion.network.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Iterable

# these keep the order of the values in memory and change nothing but the shape
RESHAPES = frozenset(["view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as"])


class LayoutError(ValueError):
    """A tensor in which the batch cannot be told from other axes; the message says why."""


class Layouts:
    """The layouts of the tensors of a graph; nodes that depend on no image have none."""

    def __init__(self) -> None:
        self._known: dict[fx.Node, Layout | LayoutError | None] = {}

    def of(self, node: fx.Node) -> Layout:
        """The layout of ``node``.

        Raises:
            LayoutError: the batch is in no axis, in several, or not in one piece.
        """
        if node not in self._known:
            self._fill(node.graph)
        found = self._known[node]
        if isinstance(found, LayoutError):
            raise found
        if found is None:
            raise LayoutError(_about(node, "depends on no image"))
        return found

    def are_known(self, node: fx.Node) -> bool:
        """Whether ``node`` has a layout, or depends on no image and needs none."""
        if node not in self._known:
            self._fill(node.graph)
        return not isinstance(self._known[node], LayoutError)

    def _fill(self, graph: fx.Graph) -> None:
        for each in graph.nodes:
            if each not in self._known:
                self._known[each] = self._found(each)

    def _found(self, node: fx.Node) -> Layout | LayoutError | None:
        value = node.meta.get("val")
        if node.op == "output" or not isinstance(value, torch.Tensor) or is_filled(node):
            return None
        if node.op == "placeholder":
            return Layout(0)
        maker = node.args[0] if node.target is operator.getitem else node
        assert isinstance(maker, fx.Node)
        signals = [(a, found) for a in maker.all_input_nodes if (found := self._known.get(a)) is not None]
        if not signals:
            return None
        known = [(a, found) for a, found in signals if isinstance(found, Layout)]
        try:
            if len(known) == len(signals):
                return _derived(maker, node, known)
            axis = _batch_axis(node)  # images have met in an operand; here they are apart again
            _quotient(node, 1, [sizes_of_one(node)[axis]])
            return Layout(axis)
        except LayoutError as error:
            return error


def _derived(maker: fx.Node, node: fx.Node, operands: list[tuple[fx.Node, Layout]]) -> Layout:
    """The layout of ``node``, which ``maker`` computes of these operands."""
    sizes = sizes_of_one(node)
    axis = _batch_axis(node)
    name = op_name(maker.target)
    source, layout = operands[0]
    if name in RESHAPES:
        before, held = sizes_of_one(source), layout.axis
        outside = math.prod(before[:held]) * layout.outer
        inside = math.prod(before[held + 1 :]) * (before[held] // layout.outer)
        outer = _quotient(node, outside, sizes[:axis])
        _quotient(node, inside, sizes[axis + 1 :])
        return Layout(axis, outer)
    inner = {sizes_of_one(a)[held.axis] // held.outer for a, held in operands}
    if len(inner) > 1:
        raise LayoutError(_about(node, "joins values of different images, in axes that hold the batch"))
    if name == "repeat_interleave":
        return Layout(axis, layout.outer)
    return Layout(axis, _quotient(node, sizes[axis], inner))


def _quotient(node: fx.Node, whole: int, parts: Iterable[int]) -> int:
    part = math.prod(parts)
    if part == 0 or whole % part:
        raise LayoutError(_about(node, "takes the batch apart"))
    return whole // part


def sizes_of_one(node: fx.Node) -> list[int]:
    """The sizes of ``node`` for a batch of one image.

    Raises:
        LayoutError: one is no multiple of the batch.
    """
    return [size if isinstance(size, int) else _for_one(node, size) for size in node.meta["val"].shape]


def _for_one(node: fx.Node, size: Any) -> int:
    """How often a size holds that of the batch."""
    expression = size.node.expr
    symbols = list(expression.free_symbols)
    if len(symbols) == 1:
        once, thrice = (expression.subs(symbols[0], n) for n in (1, 3))
        if once.is_integer and thrice == 3 * once:
            return int(once)
    raise LayoutError(_about(node, f"has {expression} samples, no multiple of the batch,"))


def _batch_axis(node: fx.Node) -> int:
    sizes = node.meta["val"].shape
    axes = [i for i, size in enumerate(sizes) if not isinstance(size, int)]
    if len(axes) != 1:
        raise LayoutError(_about(node, f"has {len(axes)} axes that depend on the batch"))
    return axes[0]


def _about(node: fx.Node, what: str) -> str:
    shape = "x".join(map(str, node.meta["val"].shape))
    return (
        f"{op_name(node.target)} of shape {shape} at {module_path(node) or node.name!r} {what}; a converted"
        " network needs exactly one axis of it to grow with the batch, image by image"
    )
