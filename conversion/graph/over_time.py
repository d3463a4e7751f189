"""A graph over time while it is built: every node of a program in the layouts that its consumers need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx, nn

from conversion.graph import ops
from conversion.graph.program import attribute, place
from conversion.network.between import Apart, StepByStep, Together
from conversion.network.units import Encode, Fold, FoldedSize, Increments, RunningMean, Unfold

if TYPE_CHECKING:
    from collections.abc import Callable

    from conversion.graph.program import Program
    from conversion.network.clock import Clock
    from conversion.network.layout import Layout
    from conversion.network.units import Form

UNITS = "over_time"  # path of the units that change layouts


class GraphOverTime:
    """The new graph, and the nodes in it that carry a node of the program, by form.

    Args:
        program: the functional graph.
        clock: of the network.

    Attributes:
        graph: ``(x, steps=False) -> logits``.
        form: of each node of the program that has been put in.
        spikes: nodes of the new graph that carry spikes.
        means: nodes of the new graph that carry running means of spikes.
        steps: the node of the flag that asks for all steps.
    """

    steps: fx.Node

    def __init__(self, program: Program, clock: Clock) -> None:
        self.program, self.clock, self.root = program, clock, program.root
        self.graph = fx.Graph()
        self.form: dict[fx.Node, Form] = {}
        self.spikes: set[fx.Node] = set()
        self.means: set[fx.Node] = set()
        self._made: dict[tuple[fx.Node, Form], fx.Node] = {}

    # -- nodes of the program --------------------------------------------------------------------

    def put(self, node: fx.Node, form: Form, new: fx.Node) -> fx.Node:
        """``node`` has this form, and ``new`` carries it."""
        self.form[node] = form
        self._made[node, form] = new
        return new

    def put_image(self, node: fx.Node) -> None:
        """The inputs of the new graph, of which the image is checked as it enters."""
        image = self.graph.placeholder("x")
        self.steps = self.graph.placeholder("steps", default_value=False)
        encode = Encode(self.program.input_shape, tokens=not node.meta["val"].is_floating_point())
        self.put(node, "static", self.call(f"{UNITS}.encode", encode, image))

    def put_constant(self, node: fx.Node, varies: Callable[[fx.Node], bool]) -> None:
        """A node that does not depend on the image: the same for all, or growing with the batch.

        Args:
            node: of the program.
            varies: whether a node depends on the image.
        """
        inputs = node.all_input_nodes
        if any(varies(a) or self.form[a] == "sized" for a in inputs):
            self.form[node] = "sized"  # made when it is wanted, for B or for T * B
        else:
            self.put(node, "constant", self.copied(node, lambda a: self.get(a, "static")))

    def get(self, node: fx.Node, form: Form) -> fx.Node:
        """``node`` in the new graph, in the wanted form."""
        own = self.form[node]
        if own == "constant":
            return self._made[node, own]
        if own == "sized" and form != "static":
            form = "step"  # T * B, whatever the values are
        if (node, form) not in self._made:
            self._made[node, form] = self._sized(node, form) if own == "sized" else self._changed(node, form)
        return self._made[node, form]

    def known(self, node: fx.Node, form: Form) -> fx.Node | None:
        """``node`` in this form, None if nothing has asked for it yet."""
        return self._made.get((node, form))

    def copied(self, node: fx.Node, arg: Callable[[fx.Node], fx.Node]) -> fx.Node:
        """A call as ``node`` makes it, of the arguments that ``arg`` gives."""
        new = self.graph.node_copy(node, arg)
        new.meta = {k: v for k, v in node.meta.items() if k in ("nn_module_stack", "stack_trace")}
        return new

    def _sized(self, node: fx.Node, form: Form) -> fx.Node:
        """A constant or a size that grows with the batch, for B or for T * B."""
        if form != "static" and ops.op_name(node.target) == "sym_size":
            return self.call(f"{UNITS}.folded_size", FoldedSize(self.clock), self.get(node, "static"))
        image = self.program.image  # only asked for its device
        return self.copied(node, lambda a: self.get(a, "static" if a is image else form))

    def _changed(self, node: fx.Node, form: Form) -> fx.Node:
        """A signal in another form than its own."""
        own, source = self.form[node], self._made[node, self.form[node]]
        if not self.program.layouts.are_known(node):
            return self._changed_between(node, own, form)
        layout = self.program.layout(node)
        if own == "static":  # steps and means of something constant are the same
            new = self.fold(self.unfold(source, layout, static=True), layout)
            self._made[node, "step"] = self._made[node, "mean"] = new
            return new
        if form == "static":
            raise AssertionError(f"{node.name} varies over time")
        return self.converted(source, form, layout, f"{node.name}_{'mean' if form == 'mean' else 'steps'}")

    # -- operations between images ---------------------------------------------------------------

    def between(self, node: fx.Node, form: Form, operand: Callable[[fx.Node], fx.Node]) -> fx.Node:
        """A call as ``node`` makes it, on each step apart from the others.

        Args:
            node: of the program; takes or gives values that belong to no single image.
            form: that it works on.
            operand: gives an operand that is a signal in this form.
        """
        operands, varying = [], []
        for a in node.all_input_nodes:
            varies = self.form[a] in ("static", "step", "mean")
            varying.append(varies)
            if not varies:
                operands.append(self.get(a, "static"))
            elif self.program.layouts.are_known(a):
                layout = self.program.layout(a)
                unit = Apart(self.clock, layout)
                operands.append(self.call(f"{UNITS}.{node.name}_{a.name}", unit, operand(a)))
            else:
                operands.append(operand(a))
        step = StepByStep(node.target, node.args, dict(node.kwargs), tuple(varying))
        new = self.call(f"{UNITS}.{node.name}", step, *operands)
        if self.program.layouts.are_known(node):
            new = self.call(f"{UNITS}.{node.name}_together", Together(self.program.layout(node)), new)
        return new

    def _changed_between(self, node: fx.Node, own: Form, form: Form) -> fx.Node:
        """`_changed` for what belongs to no single image, ``[T, ...]``."""
        source = self._made[node, own]
        if own == "static":
            new = self.call(f"{UNITS}.{node.name}_steps", Apart(self.clock, None), source)
            self._made[node, "step"] = self._made[node, "mean"] = new
            return new
        unit = RunningMean() if form == "mean" else Increments()
        return self.call(f"{UNITS}.{node.name}_{form}", unit, source)

    # -- units -----------------------------------------------------------------------------------

    def converted(self, value: fx.Node, form: Form, layout: Layout, name: str) -> fx.Node:
        """Steps as running means, or running means as steps, by a unit of this name."""
        unit = RunningMean() if form == "mean" else Increments()
        new = self.fold(self.call(f"{UNITS}.{name}", unit, self.unfold(value, layout)), layout)
        if form == "mean" and value in self.spikes:
            self.means.add(new)
        return new

    def unfold(self, value: fx.Node, layout: Layout, static: bool = False) -> fx.Node:
        """``[T * B, ...]``, or a static ``[B, ...]``, -> ``[T, B, ...]``."""
        name = f"{UNITS}.{'static' if static else 'unfold'}{layout.suffix()}"
        return self.call(name, Unfold(self.clock, static, layout), value)

    def fold(self, value: fx.Node, layout: Layout) -> fx.Node:
        """``[T, B, ...]`` -> ``[T * B, ...]``."""
        return self.call(f"{UNITS}.fold{layout.suffix()}", Fold(layout), value)

    def call(self, path: str, module: nn.Module, *args: Any) -> fx.Node:
        """A call of ``module``, put at ``path``; units without a state are shared."""
        shared = path.startswith(UNITS) and isinstance(module, Unfold | Fold | FoldedSize)
        if not (shared and attribute(self.root, path) is not None):
            place(self.root, path, module)
        return self.graph.create_node("call_module", path, args)
