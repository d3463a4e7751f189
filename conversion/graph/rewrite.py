"""From a graph over ``[B, ...]`` to one over time: neurons put in, each tensor in the layout it needs."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from conversion.graph import ops
from conversion.graph.export import ConversionError, is_boundary, place
from conversion.network.annotation import Operation, flat
from conversion.network.units import Decode, Encode, Fold, FoldedSize, Increments, RunningMean, Unfold

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from conversion.graph.export import Program
    from conversion.network.annotation import Kind
    from conversion.network.clock import Clock
    from conversion.network.site import Site
    from conversion.network.units import Domain, Form

UNITS = "over_time"  # where the units that change layouts stand
OPERATION = "operation"  # where a node notes what has to be counted, until the graph is done


@dataclass
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
    analog: dict[str, str] = field(default_factory=dict)
    spiking_inputs: list[str] = field(default_factory=list)
    weighted: list[str] = field(default_factory=list)
    operations: tuple[Operation | None, ...] = ()


class Rewriter:
    """Builds the graph over time, node by node.

    Args:
        program: the functional graph.
        clock: of the network.
        replaced: sites that stand for a node (an activation), with their paths.
        before: sites in front of consumers, by the node whose value they carry.
        domain: ``"step"`` if neurons take and give steps, ``"mean"`` if running means.
    """

    def __init__(
        self,
        program: Program,
        clock: Clock,
        replaced: Mapping[fx.Node, tuple[str, Site]],
        before: Mapping[fx.Node, tuple[str, Site]],
        domain: Domain,
    ) -> None:
        self.program, self.clock, self.domain = program, clock, domain
        self.replaced, self.before = replaced, before
        self.graph = fx.Graph()
        self.out = Rewritten(program.root, self.graph)
        self.form: dict[fx.Node, Form] = {}
        self.made: dict[tuple[fx.Node, str], fx.Node] = {}
        self.signals = depends_on_image(program)
        self.spiky: set[fx.Node] = set()  # nodes of the new graph that carry spikes
        self.tracked: set[fx.Node] = set()  # nodes of the new graph that carry running means of spikes
        self.products: set[str] = set()  # names given to products

    def run(self) -> Rewritten:
        """The finished graph."""
        for node in self.program.graph.nodes:
            if node.op == "output":
                break
            self.visit(node)
        logits = self.program.output
        if self.form[logits] == "static":
            raise ConversionError("no neuron stands between the image and the logits")
        steps = self._unfolded(self.get(logits, "step"), static=False, axis=0)
        flag = self.steps_flag
        self.graph.output(self._call(f"{UNITS}.decode", Decode(self.clock), (steps, flag)))
        self.graph.eliminate_dead_code(is_impure_node=is_boundary)
        self.graph.lint()
        calls = [n for n in self.graph.nodes if n.op in ("call_function", "call_module")]
        self.out.operations = tuple(n.meta.pop(OPERATION, None) for n in calls)
        return self.out

    # -- one node ------------------------------------------------------------------------------

    def visit(self, node: fx.Node) -> None:
        """Give ``node`` its form, and its place in the new graph."""
        if node.op == "placeholder":
            image = self.graph.placeholder("x")
            self.steps_flag = self.graph.placeholder("steps", default_value=False)
            self._keep(
                node, "static", self._call(f"{UNITS}.encode", Encode(self.program.input_shape), (image,))
            )
        elif node.op == "get_attr":
            self._keep(node, "constant", self._copied(node, "static"))
        elif node not in self.signals:
            self.form[node] = "sized" if self._has_size(node) else "constant"
            if self.form[node] == "constant":
                self.made[node, "constant"] = self._copied(node, "static")
        elif node in self.replaced:
            path, site = self.replaced[node]
            self._keep(node, self.domain, self._fired(node.all_input_nodes[0], path, site))
        else:
            self._operate(node)

    def _operate(self, node: fx.Node) -> None:
        role = ops.role(node, self._is_signal)
        forms = {self._arriving(a, node) for a in node.all_input_nodes if a in self.signals}
        if forms == {"static"}:
            form: Form = "static"
        elif role in ("nonlinear", "activation"):
            form = "mean"
            kind = ops.op_name(node.target)
            self.out.analog[self._label(node)] = kind
        else:
            timed = forms - {"static"}
            form = "mean" if timed == {"mean"} else "step"
        new = self._keep(node, form, self._copied(node, form))
        product = wants_neuron(node, self._is_signal) and role == "nonlinear"
        if role == "weighted":
            name = str(node.target) if node.op == "call_module" else node.name
            self.out.weighted.append(name)
            spikes = new.args[0] in self.spiky
            if spikes:
                self.out.spiking_inputs.append(name)
            self._count(new, node, name, self._kind(node), form, spikes)
        elif product:
            spikes = all(a in self.spiky or a in self.tracked for a in new.all_input_nodes)
            self._count(new, node, self._product_name(node), "matmul", form, spikes)
        elif ops.op_name(node.target) in ops.MULTIPLIES and role in ("nonlinear", "affine"):
            fused = ops.op_name(node.target) == ops.ATTENTION
            multiplies: Kind = "attention" if fused else "projection" if role == "affine" else "matmul"
            spikes = role == "affine" and any(a in self.spiky for a in new.all_input_nodes)
            self._count(new, node, self._product_name(node), multiplies, form, spikes)
        elif role in ("nonlinear", "activation"):
            new.meta[OPERATION] = Operation(name=node.name, kind="unit", form=form)
        elif role == "affine" and form == self.domain:
            self._mark(node, new, form)

    def _count(
        self, new: fx.Node, node: fx.Node, name: str, kind: Kind, form: Form, spikes: bool = False
    ) -> None:
        """Note what the counter of operations has to know about the node ``new``."""
        operands = [(i, a) for i, a in enumerate(flat(node.args)) if self._is_signal(a)]
        new.meta[OPERATION] = Operation(
            name=name,
            kind=kind,
            form=form,
            axis=self.program.batch_axis(node),
            operands=tuple(i for i, _ in operands),
            axes=tuple(self.program.batch_axis(a) for _, a in operands),
            spikes=spikes,
        )

    def _kind(self, node: fx.Node) -> Kind:
        if node.op == "call_module":
            linear = isinstance(self.out.root.get_submodule(str(node.target)), nn.Linear)
        else:
            linear = ops.op_name(node.target) == "linear"
        return "linear" if linear else "conv"

    def _product_name(self, node: fx.Node) -> str:
        """The module that multiplies and the operation, numbered from the second on."""
        first = name = f"{ops.module_path(node)}.{ops.op_name(node.target)}".lstrip(".")
        number = 1
        while name in self.products:
            number += 1
            name = f"{first}_{number}"
        self.products.add(name)
        return name

    def _mark(self, node: fx.Node, new: fx.Node, form: Form) -> None:
        """Shapes, averages and sums of spikes are spikes to the layer behind them."""
        name = ops.op_name(node.target)
        pooled = name.removeprefix("_").removeprefix("adaptive_").startswith("avg_pool") or name == "mean"
        passes = name in ops.SHAPE | ops.SUMS or node.target is operator.getitem or pooled
        operands = [a for a in node.all_input_nodes if not ops.is_integer(a)]
        if passes and all(a in self.signals and self.made.get((a, form)) in self.spiky for a in operands):
            self.spiky.add(new)

    # -- forms ---------------------------------------------------------------------------------

    def get(self, node: fx.Node, form: Form) -> fx.Node:
        """``node`` in the new graph, in the wanted form."""
        own = self.form[node]
        if own == "constant":
            return self.made[node, "constant"]
        if own == "sized":
            world = "static" if form == "static" else "timed"
            if (node, world) not in self.made:
                self.made[node, world] = self._sized(node, world)
            return self.made[node, world]
        if (node, form) not in self.made:
            self.made[node, form] = self._changed(node, own, form)
        return self.made[node, form]

    def _changed(self, node: fx.Node, own: Form, form: Form) -> fx.Node:
        axis = self.program.batch_axis(node)
        source = self.made[node, own]
        if own == "static":  # steps and means of something constant are the same
            new = self._folded(self._unfolded(source, static=True, axis=axis), axis)
            self.made[node, "step"] = self.made[node, "mean"] = new
            return new
        if form == "static":
            raise AssertionError(f"{node.name} varies over time")
        unit = RunningMean() if form == "mean" else Increments()
        label = "mean" if form == "mean" else "steps"
        steps = self._unfolded(source, static=False, axis=axis)
        new = self._folded(self._call(f"{UNITS}.{node.name}_{label}", unit, (steps,)), axis)
        if form == "mean" and source in self.spiky:
            self.tracked.add(new)
        return new

    def _sized(self, node: fx.Node, world: str) -> fx.Node:
        """A constant or a size that grows with the batch, for B or for T * B."""
        if world == "timed" and ops.op_name(node.target) == "sym_size":
            size = self.get(node, "static")
            return self._call(f"{UNITS}.folded_size", FoldedSize(self.clock), (size,))
        return self._copied(node, "static" if world == "static" else "step")

    def _arriving(self, node: fx.Node, consumer: fx.Node) -> Form:
        carried = node in self.before and wants_neuron(consumer, self._is_signal)
        return self.domain if carried else self.form[node]

    def _copied(self, node: fx.Node, form: Form) -> fx.Node:
        def arg(a: fx.Node) -> fx.Node:
            return self._spiked(a, form, node) if a in self.before else self.get(a, form)

        new = self.graph.node_copy(node, arg)
        new.meta = {k: v for k, v in node.meta.items() if k in ("nn_module_stack", "stack_trace")}
        return new

    # -- neurons -------------------------------------------------------------------------------

    def _spiked(self, node: fx.Node, form: Form, consumer: fx.Node) -> fx.Node:
        """The value of ``node`` behind its neuron, for a consumer that wants one."""
        path, site = self.before[node]
        if not wants_neuron(consumer, self._is_signal):
            return self.get(node, form)
        if (node, "spiked") not in self.made:
            self.made[node, "spiked"] = self._fired(node, path, site)
        fired = self.made[node, "spiked"]
        if form in (self.domain, "static"):
            return fired
        key = (node, f"spiked {form}")
        if key not in self.made:
            axis = self.program.batch_axis(node)
            unit = RunningMean() if form == "mean" else Increments()
            steps = self._unfolded(fired, static=False, axis=axis)
            self.made[key] = self._folded(
                self._call(f"{UNITS}.{node.name}_spiked_{form}", unit, (steps,)), axis
            )
            if form == "mean":
                self.tracked.add(self.made[key])
        return self.made[key]

    def _fired(self, source: fx.Node, path: str, site: Site) -> fx.Node:
        axis = self.program.batch_axis(source)
        static = self.form[source] == "static"
        value = self.get(source, "static" if static else self.domain)
        steps = self._unfolded(value, static=static, axis=axis)
        spikes = self._call(path, site, (steps,))
        spikes.meta[OPERATION] = Operation(name=path, kind="neuron", form=self.domain)
        fired = self._folded(spikes, axis)
        self.spiky.add(fired)
        return fired

    # -- small things --------------------------------------------------------------------------

    def _unfolded(self, value: fx.Node, static: bool, axis: int) -> fx.Node:
        name = f"{UNITS}.{'static' if static else 'unfold'}{axis or ''}"
        return self._call(name, Unfold(self.clock, static, axis), (value,))

    def _folded(self, value: fx.Node, axis: int) -> fx.Node:
        return self._call(f"{UNITS}.fold{axis or ''}", Fold(axis), (value,))

    def _call(self, path: str, module: nn.Module, args: tuple[Any, ...]) -> fx.Node:
        shared = path.startswith(UNITS) and isinstance(module, Unfold | Fold | FoldedSize)
        if not (shared and _has(self.out.root, path)):
            place(self.out.root, path, module)
        return self.graph.create_node("call_module", path, args)

    def _keep(self, node: fx.Node, form: Form, new: fx.Node) -> fx.Node:
        self.form[node] = form
        self.made[node, form] = new
        return new

    def _is_signal(self, value: Any) -> bool:
        if isinstance(value, list | tuple):
            return any(self._is_signal(v) for v in value)
        return isinstance(value, fx.Node) and value in self.signals

    def _has_size(self, node: fx.Node) -> bool:
        inputs = node.all_input_nodes
        return any(a in self.signals or self.form[a] == "sized" for a in inputs)

    def _label(self, node: fx.Node) -> str:
        path = ops.module_path(node)
        label = path or node.name
        number = 1
        while label in self.out.analog:
            number += 1
            label = f"{path or node.name} ({number})"
        return label


def depends_on_image(program: Program) -> set[fx.Node]:
    """Nodes whose values depend on the image; sizes do not."""
    found: set[fx.Node] = set()
    for node in program.graph.nodes:
        computes = node.op in ("call_function", "call_module") and not ops.is_integer(node)
        if node.op == "placeholder" or (computes and any(a in found for a in node.all_input_nodes)):
            found.add(node)
    return found


def wants_neuron(consumer: fx.Node, is_signal: Callable[[Any], bool]) -> bool:
    """Whether the operands of ``consumer`` should come as spikes: weights or another signal meet them."""
    if ops.is_integer(consumer):
        return False
    role = ops.role(consumer, is_signal)
    if role == "weighted":
        return True
    return role == "nonlinear" and ops.op_name(consumer.target) in ops.MATRIX_PRODUCTS


def _has(root: nn.Module, path: str) -> bool:
    at: Any = root
    for name in path.split("."):
        at = getattr(at, name, None)
        if at is None:
            return False
    return True
