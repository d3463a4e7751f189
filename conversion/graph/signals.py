"""Which nodes of a program depend on the image, and what each operation does to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx
from torch.nn.modules.batchnorm import _BatchNorm

from conversion.graph import ops

if TYPE_CHECKING:
    from conversion.graph.ops import Role
    from conversion.graph.program import Program


class Signals:
    """The nodes of ``program`` whose values depend on the image; sizes do not.

    Args:
        program: as it is now; nodes that are made later are no signals.
    """

    def __init__(self, program: Program) -> None:
        self.program, self.root = program, program.root
        self.nodes: set[fx.Node] = set()
        for node in program.graph.nodes:
            computes = node.op in ("call_function", "call_module") and not (
                ops.is_integer(node) or ops.is_filled(node)
            )
            depends = computes and any(a in self.nodes for a in node.all_input_nodes)
            if node.op == "placeholder" or depends:
                self.nodes.add(node)

    def __contains__(self, value: Any) -> bool:
        """Whether a node, or any of a list of nodes, is a signal."""
        if isinstance(value, list | tuple):
            return any(v in self for v in value)
        return isinstance(value, fx.Node) and value in self.nodes

    def of(self, node: fx.Node) -> list[fx.Node]:
        """The signals among the inputs of ``node``."""
        return [a for a in node.all_input_nodes if a in self.nodes]

    def role(self, node: fx.Node) -> Role:
        """What ``node``, a call with at least one signal, means for the signal; see `ops.role`."""
        if node.op == "call_module":  # put back by the export: layers with weights, and norms
            layer = self.root.get_submodule(str(node.target))
            return "affine" if isinstance(layer, _BatchNorm) else "weighted"
        return ops.role(node, self.__contains__)

    def is_activation(self, node: fx.Node) -> bool:
        """Whether ``node`` is an activation that a neuron can replace."""
        named = node.op == "call_function" and ops.op_name(node.target) in ops.ACTIVATIONS
        return named and node in self.nodes and self.role(node) == "activation"

    def is_product(self, node: fx.Node) -> bool:
        """Whether ``node`` is a matrix product of two signals, image by image."""
        named = node.op == "call_function" and ops.op_name(node.target) in ops.MATRIX_PRODUCTS
        return named and self.role(node) == "nonlinear" and not self.program.joins_images(node)

    def wants_spikes(self, node: fx.Node) -> bool:
        """Whether the operands of ``node`` should come as spikes: weights or another signal meet them."""
        return not ops.is_integer(node) and (self.role(node) == "weighted" or self.is_product(node))

    def only_reshapes(self, node: fx.Node) -> bool:
        """Whether ``node`` gives a signal another shape and does nothing else."""
        if node.op != "call_function" or ops.op_name(node.target) not in (ops.SHAPE | {"getitem"}):
            return False
        return all(a in self.nodes or ops.is_integer(a) for a in node.all_input_nodes)

    def feeds_only_weights(self, node: fx.Node) -> bool:
        """Whether ``node`` only goes, in whatever shapes, into layers with weights and products."""
        for user in node.users:
            if user.op == "output":
                return False
            if self.wants_spikes(user):
                continue
            if not self.only_reshapes(user) or not self.feeds_only_weights(user):
                return False
        return True
