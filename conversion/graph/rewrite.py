"""From a graph over ``[B, ...]`` to one over time: neurons put in, each tensor in the layout it needs."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import fx

from conversion.graph import ops
from conversion.graph.ledger import Ledger
from conversion.graph.over_time import UNITS, GraphOverTime
from conversion.graph.program import ConversionError, is_boundary
from conversion.graph.signals import Signals
from conversion.network.units import Decode

if TYPE_CHECKING:
    from torch import nn

    from conversion.graph.ops import Role
    from conversion.graph.placement import Placed, Placement
    from conversion.graph.program import Program
    from conversion.network.annotation import Operation
    from conversion.network.clock import Clock
    from conversion.network.units import Domain, Form


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """A graph over time, the modules that it calls, and what the report says about it.

    Attributes:
        root: modules and parameters.
        graph: ``(x, steps=False) -> logits``.
        analog: operations behind the first neuron that stayed real-valued, by module path.
        spiking_inputs: paths of the layers whose input is spikes, or shapes and averages of spikes.
        weighted: paths of all layers with weights.
        operations: of each call in the graph what has to be counted, None if nothing has.
    """

    root: nn.Module
    graph: fx.Graph
    analog: dict[str, str]
    spiking_inputs: tuple[str, ...]
    weighted: tuple[str, ...]
    operations: tuple[Operation | None, ...]


def rewrite(program: Program, clock: Clock, placement: Placement, domain: Domain) -> Rewritten:
    """The graph over time.

    Args:
        program: the functional graph; its modules go over to the result.
        clock: of the network.
        placement: the neurons.
        domain: ``"step"`` if neurons take and give steps, ``"mean"`` if running means.

    Raises:
        ConversionError: no neuron comes between the image and the logits.
        UnsupportedOperationError: an operation that no rule covers.
    """
    return _Rewriter(program, clock, placement, domain).run()


class _Rewriter:
    """Goes through the nodes of a program in order, and puts each into the graph over time."""

    def __init__(self, program: Program, clock: Clock, placement: Placement, domain: Domain) -> None:
        self.program, self.clock, self.placement, self.domain = program, clock, placement, domain
        self.signals = Signals(program)
        self.over_time = GraphOverTime(program, clock)
        self.ledger = Ledger(self.over_time, self.signals)
        self.fired: dict[tuple[fx.Node, Form], fx.Node] = {}  # what neurons in front of consumers send

    def run(self) -> Rewritten:
        """The finished graph."""
        for node in self.program.graph.nodes:
            if node.op == "output":
                break
            self.visit(node)
        self._finish()
        return Rewritten(
            root=self.program.root,
            graph=self.over_time.graph,
            analog=self.ledger.analog,
            spiking_inputs=tuple(self.ledger.spiking_inputs),
            weighted=tuple(self.ledger.weighted),
            operations=self.ledger.operations(),
        )

    def visit(self, node: fx.Node) -> None:
        """Give ``node`` its form, and its place in the new graph."""
        if node.op == "placeholder":
            self.over_time.put_image(node)
        elif node.op == "get_attr":
            self.over_time.put(node, "constant", self.over_time.copied(node, lambda a: a))
        elif node not in self.signals:
            self.over_time.put_constant(node, lambda a: a in self.signals)
        elif node in self.placement.replaced:
            placed = self.placement.replaced[node]
            self.over_time.put(node, self.domain, self._fire(node.all_input_nodes[0], placed))
        else:
            self._operate(node)

    def _operate(self, node: fx.Node) -> None:
        role = self.signals.role(node)
        form = self._form(node, role)
        exact = role in ("nonlinear", "activation")
        joins = self.program.joins_images(node)
        if exact and form != "static" and not joins:  # else it is noted as between images
            self.ledger.note_analog(node)

        def operand(a: fx.Node) -> fx.Node:
            return self._operand(a, form, node)

        apart = joins and form != "static"
        made = self.over_time.between(node, form, operand) if apart else self.over_time.copied(node, operand)
        new = self.over_time.put(node, form, made)
        if joins:
            self.ledger.note_between(new, node, form)
        elif role == "weighted":
            self.ledger.note_layer(new, node, form)
        elif self.signals.is_product(node):
            self.ledger.note_product(new, node, form)
        elif ops.op_name(node.target) in ops.MULTIPLIES:
            self.ledger.note_multiplication(new, node, form, role)
        elif exact and ops.op_name(node.target) not in ops.SHAPE | ops.COPIES:
            self.ledger.note_exact(new, node, form)
        elif form == self.domain and self._passes_spikes(node, form):
            self.over_time.spikes.add(new)

    def _form(self, node: fx.Node, role: Role) -> Form:
        """The form that ``node`` works on: nonlinear operations need means, affine ones take either."""
        forms = {self._arriving(a, node) for a in self.signals.of(node)}
        if forms == {"static"}:
            return "static"
        if role in ("nonlinear", "activation") or forms - {"static"} == {"mean"}:
            return "mean"
        return "step"

    def _passes_spikes(self, node: fx.Node, form: Form) -> bool:
        """Whether an affine ``node`` gives shapes, averages or sums of spikes: spikes to the next layer."""
        name = ops.op_name(node.target)
        pooled = name.removeprefix("_").removeprefix("adaptive_").startswith("avg_pool") or name == "mean"
        if not (name in ops.SHAPE | ops.SUMS or node.target is operator.getitem or pooled):
            return False
        operands = [a for a in node.all_input_nodes if not ops.is_integer(a)]
        known = [self.over_time.known(a, form) if a in self.signals else None for a in operands]
        return all(a in self.over_time.spikes for a in known)

    # -- neurons -------------------------------------------------------------------------------

    def _arriving(self, node: fx.Node, consumer: fx.Node) -> Form:
        """The form in which ``consumer`` finds ``node``."""
        sent = node in self.placement.before and self.signals.wants_spikes(consumer)
        return self.domain if sent else self.over_time.form[node]

    def _operand(self, node: fx.Node, form: Form, consumer: fx.Node) -> fx.Node:
        """``node`` for ``consumer``: as spikes if it has a neuron and the consumer wants them."""
        placed = self.placement.before.get(node)
        if placed is None or not self.signals.wants_spikes(consumer):
            return self.over_time.get(node, form)
        own = self.domain
        if (node, own) not in self.fired:
            self.fired[node, own] = self._fire(node, placed)
        spikes = self.fired[node, own]
        if form in (own, "static"):
            return spikes
        if (node, form) not in self.fired:
            name, layout = f"{node.name}_spiked_{form}", self.program.layout(node)
            self.fired[node, form] = self.over_time.converted(spikes, form, layout, name)
        return self.fired[node, form]

    def _fire(self, source: fx.Node, placed: Placed) -> fx.Node:
        """What a neuron sends for ``source``."""
        layout = self.program.layout(source)
        static = self.over_time.form[source] == "static"
        value = self.over_time.get(source, "static" if static else self.domain)
        currents = self.over_time.unfold(value, layout, static)
        spikes = self.over_time.call(placed.path, placed.site, currents)
        self.ledger.note_neuron(spikes, placed.path, self.domain)
        folded = self.over_time.fold(spikes, layout)
        self.over_time.spikes.add(folded)
        return folded

    def _finish(self) -> None:
        """Let the logits leave the graph, and clean it up."""
        logits, over_time = self.program.output, self.over_time
        if over_time.form[logits] == "static":
            raise ConversionError("there is no neuron between the image and the logits")
        steps = over_time.unfold(over_time.get(logits, "step"), self.program.layout(logits))
        decoded = over_time.call(f"{UNITS}.decode", Decode(self.clock), steps, over_time.steps)
        over_time.graph.output(decoded)
        over_time.graph.eliminate_dead_code(is_impure_node=is_boundary)
        over_time.graph.lint()
