"""What a report and a counter of operations have to know about a graph over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import fx, nn

from conversion.graph import ops
from conversion.network.annotation import Operation, flat

if TYPE_CHECKING:
    from conversion.graph.ops import Role
    from conversion.graph.over_time import GraphOverTime
    from conversion.graph.signals import Signals
    from conversion.network.annotation import Kind
    from conversion.network.units import Domain, Form


class Ledger:
    """Notes on the nodes of a graph over time, taken while it is built.

    Attributes:
        analog: operations behind the first neuron that stayed real-valued, by module path.
        weighted: paths of all layers with weights.
        spiking_inputs: paths of the layers whose input is spikes, or shapes and averages of spikes.
    """

    def __init__(self, over_time: GraphOverTime, signals: Signals) -> None:
        self.over_time, self.signals = over_time, signals
        self.analog: dict[str, str] = {}
        self.weighted: list[str] = []
        self.spiking_inputs: list[str] = []
        self._operations: dict[fx.Node, Operation] = {}
        self._products: set[str] = set()

    def operations(self) -> tuple[Operation | None, ...]:
        """Of each call in the finished graph what has to be counted, None if nothing has."""
        calls = [n for n in self.over_time.graph.nodes if n.op in ("call_function", "call_module")]
        return tuple(self._operations.get(n) for n in calls)

    def note_layer(self, new: fx.Node, node: fx.Node, form: Form) -> None:
        """A layer with weights: ``node`` of the program, ``new`` in the graph over time."""
        name = str(node.target) if node.op == "call_module" else node.name
        spikes = new.args[0] in self.over_time.spikes
        self.weighted.append(name)
        if spikes:
            self.spiking_inputs.append(name)
        self._note(new, node, name, self._kind(node), form, spikes)

    def note_product(self, new: fx.Node, node: fx.Node, form: Form) -> None:
        """A matrix product of two signals."""
        sent = self.over_time.spikes | self.over_time.means
        spikes = all(a in sent for a in new.all_input_nodes)
        self._note(new, node, self._product_name(node), "matmul", form, spikes)

    def note_multiplication(self, new: fx.Node, node: fx.Node, form: Form, role: Role) -> None:
        """Other sums of products: of a signal and a constant, or of signals that get no neurons."""
        kind: Kind = "projection" if role == "affine" else "matmul"
        if ops.op_name(node.target) == ops.ATTENTION:
            kind = "attention"
        spikes = role == "affine" and any(a in self.over_time.spikes for a in new.all_input_nodes)
        self._note(new, node, self._product_name(node), kind, form, spikes)

    def note_exact(self, new: fx.Node, node: fx.Node, form: Form) -> None:
        """An operation that is evaluated exactly."""
        self._operations[new] = Operation(name=node.name, kind="unit", form=form)

    def note_between(self, new: fx.Node, node: fx.Node, form: Form) -> None:
        """An operation between the images of a batch, which stays real-valued."""
        name = self._product_name(node)
        if form != "static":
            self.analog[name] = f"{ops.op_name(node.target)} between the images of a batch"
        kind: Kind = "between" if ops.op_name(node.target) in ops.MULTIPLIES else "unit"
        folds = form != "static" and self.over_time.program.layouts.are_known(node)
        computes = new.all_input_nodes[0] if folds else new
        self._operations[computes] = Operation(name=name, kind=kind, form=form)

    def note_neuron(self, new: fx.Node, path: str, domain: Domain) -> None:
        """A neuron."""
        self._operations[new] = Operation(name=path, kind="neuron", form=domain)

    def note_analog(self, node: fx.Node) -> None:
        """An operation behind the first neuron that stays real-valued."""
        path = ops.module_path(node) or node.name
        label, number = path, 1
        while label in self.analog:
            number += 1
            label = f"{path} ({number})"
        self.analog[label] = ops.op_name(node.target)

    def _note(self, new: fx.Node, node: fx.Node, name: str, kind: Kind, form: Form, spikes: bool) -> None:
        program = self.over_time.program
        operands = [(i, a) for i, a in enumerate(flat(node.args)) if a in self.signals]
        self._operations[new] = Operation(
            name=name,
            kind=kind,
            form=form,
            layout=program.layout(node),
            operands=tuple(i for i, _ in operands),
            layouts=tuple(program.layout(a) for _, a in operands),
            spikes=spikes,
        )

    def _product_name(self, node: fx.Node) -> str:
        """The module that multiplies and the operation, numbered from the second on."""
        first = name = f"{ops.module_path(node)}.{ops.op_name(node.target)}".lstrip(".")
        number = 1
        while name in self._products:
            number += 1
            name = f"{first}_{number}"
        self._products.add(name)
        return name

    def _kind(self, node: fx.Node) -> Kind:
        if node.op == "call_module":
            linear = isinstance(self.over_time.root.get_submodule(str(node.target)), nn.Linear)
        else:
            linear = ops.op_name(node.target) == "linear"
        return "linear" if linear else "conv"
