"""Paths of neurons in a converted network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import fx, nn

from conversion.graph import ops
from conversion.graph.program import attribute

if TYPE_CHECKING:
    from conversion.graph.program import Program


class SiteNames:
    """Gives each site of ``program`` a path of its own."""

    def __init__(self, program: Program) -> None:
        self.root = program.root
        self.given: set[str] = set()

    def of_activation(self, node: fx.Node) -> str:
        """The path of the module that was the activation, or a name in the module that called it."""
        path = ops.module_path(node)
        label = ops.op_name(node.target).rpartition(".")[2]
        if self._is_alone(path):
            return self._new(path, free=True)
        return self._new(_joined(path, label))

    def of_operand(self, consumer: fx.Node, operand: fx.Node) -> str:
        """A name in the module of the consumer: the layer that the neuron feeds, or which operand it is."""
        if consumer.op == "call_module":
            parent, _, leaf = str(consumer.target).rpartition(".")
            return self._new(_joined(parent, f"{leaf}_input"))
        side = "ab"[min(consumer.all_input_nodes.index(operand), 1)]
        return self._new(_joined(ops.module_path(consumer), f"{ops.op_name(consumer.target)}_{side}"))

    def _is_alone(self, path: str) -> bool:
        """Whether the module at ``path`` is nothing but an activation, so that the neuron takes its place."""
        owner = attribute(self.root, path) if path else None
        if not isinstance(owner, nn.Module):  # it was inside a layer that the export has put back bare
            return bool(path)
        parameters = [name for name, _ in owner.named_parameters()]
        return not any(True for _ in owner.children()) and parameters in ([], ["v_threshold"])

    def _new(self, base: str, free: bool = False) -> str:
        """``base``, numbered where it is taken: by another site, or by an attribute unless it is ``free``."""
        name, number = base, 0
        while name in self.given or ((number or not free) and attribute(self.root, name) is not None):
            number += 1
            name = f"{base}_{number}"
        self.given.add(name)
        return name


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)
