"""Tensors that take nothing of a signal but its shape and its type: constants of the size of the batch."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from conversion.graph import ops
from conversion.graph.layouts import LayoutError, sizes_of_one
from conversion.graph.program import ConversionError
from conversion.graph.signals import Signals

if TYPE_CHECKING:
    from conversion.graph.program import Program

ATEN = torch.ops.aten
SHAPED = {
    "expand_as": ATEN.expand.default,
    "view_as": ATEN.reshape.default,
    "reshape_as": ATEN.reshape.default,
}


def separate_constants(program: Program) -> None:
    """Let shapes come from the size of the batch, and no longer from the signals that had them.

    Raises:
        UnsupportedOperationError: an operation that draws random numbers.
    """
    graph, signals, sizes = program.graph, Signals(program), _Sizes(program)
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        ops.refuse_random(node)
        name = ops.op_name(node.target)
        like = node.args[0] if node.args else None
        if name in SHAPED and node in signals:
            _replace(node, SHAPED[name], (like, sizes.of(node)))
        elif name in ops.FILLED and like in signals:
            _fill(node, ops.filled_with(node), program.image, sizes)


def _fill(node: fx.Node, value: Any, image: fx.Node, sizes: _Sizes) -> None:
    """A tensor of the size of ``node``, on the device of the images, in place of it."""
    if isinstance(value, fx.Node):
        _replace(node, ATEN.expand.default, (value, sizes.of(node)))
    else:
        _replace(node, ATEN.new_full.default, (image, sizes.of(node), value), dtype=node.meta["val"].dtype)


def _replace(node: fx.Node, target: Any, args: tuple[Any, ...], **kwargs: Any) -> None:
    with node.graph.inserting_before(node):
        new = node.graph.call_function(target, args, kwargs)
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)


class _Sizes:
    """Sizes as nodes that ask for nothing but how many images there are."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._made: dict[int, fx.Node] = {}

    def of(self, node: fx.Node) -> list[Any]:
        """The sizes of ``node``.

        Raises:
            ConversionError: one is no multiple of the batch.
        """
        try:
            counts = sizes_of_one(node)
        except LayoutError as error:
            raise ConversionError(str(error)) from None
        sizes = zip(node.meta["val"].shape, counts, strict=True)
        return [size if isinstance(size, int) else self._times(count) for size, count in sizes]

    def _times(self, count: int) -> fx.Node:
        """``count`` times the size of the batch."""
        graph, image = self.program.graph, self.program.image
        if not self._made:
            with graph.inserting_after(image):
                self._made[1] = graph.call_function(ATEN.sym_size.int, (image, 0))
            self._made[1].meta["val"] = image.meta["val"].shape[0]
        if count not in self._made:
            with graph.inserting_after(self._made[1]):
                self._made[count] = graph.call_function(operator.mul, (self._made[1], count))
            self._made[count].meta["val"] = self._made[1].meta["val"] * count
        return self._made[count]
