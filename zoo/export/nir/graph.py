"""The graph: what of a program is a node of NIR, and what an edge.

Sums are edges: what several edges bring to a node is added. Everything else is a rule of
`zoo.export.nir.rules`, or an error that names the first operation that NIR has no node for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from conversion.graph.ops import is_integer, module_path, op_name
from zoo.errors import ExportError
from zoo.export.nir.one_step import refusal
from zoo.files.formats.torch_file import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import fx, nn

    from conversion.graph.program import Program
    from spiking.neurons import Neuron

    Rule = Callable[["Writer", fx.Node, "Signal"], "Signal"]


@dataclass(frozen=True)
class Signal:
    """The values at a node of the program: a sum of nodes of the graph, each with a factor.

    Attributes:
        sources: names of nodes, and the factors.
        shape: of one sample.
    """

    sources: tuple[tuple[str, float], ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, name: str, shape: tuple[int, ...]) -> Signal:
        """What one node of the graph answers."""
        return cls(((name, 1.0),), shape)


class Writer:
    """Walks a program and collects nodes and edges.

    Args:
        program: one step, see `zoo.export.nir.one_step`.
        neurons: by path.
        dt: seconds a step.
        rule: the rule for a node of the program by the name of its operation or the class of its module; None
            if there is none.
        reason: why there is none, by the same name.
    """

    def __init__(
        self,
        program: Program,
        neurons: Mapping[str, Neuron],
        dt: float,
        rule: Callable[[str], Rule | None],
        reason: Callable[[str], str],
    ) -> None:
        self.program, self.neurons, self.dt = program, neurons, dt
        self._rule, self._reason = rule, reason
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.signals: dict[fx.Node, Signal] = {}

    def graph(self) -> Any:
        """The graph of NIR, with its types inferred and checked by its own package."""
        import nir

        image = self.program.image
        self.nodes["input"] = nir.Input(input_type=np.array(self.program.input_shape))
        self.signals[image] = Signal((("input", 1.0),), self.program.input_shape)
        for node in self.program.graph.nodes:
            if node is not image and node.op not in ("output", "get_attr") and not is_integer(node):
                self._visit(node)
        last = self.signals[self._answer()]
        self.put("output", nir.Output(output_type=np.array(last.shape)), last)
        try:
            return nir.NIRGraph(nodes=self.nodes, edges=self.edges)
        except Exception as error:
            raise ExportError(f"nir does not accept the graph: {first_line(error)}") from error

    def _answer(self) -> fx.Node:
        """What the program returns; of any shape, unlike that of a classifier."""
        value: Any = next(iter(reversed(self.program.graph.nodes))).args[0]
        while isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        if value not in self.signals:
            raise ExportError("the network's answer does not depend on its input, or there are several")
        found: fx.Node = value
        return found

    def put(self, name: str, node: Any, signal: Signal) -> str:
        """A node that takes ``signal``; its name."""
        import nir

        key = base = re.sub(r"\W", "_", name.removeprefix("network."))
        number = 2
        while key in self.nodes:
            key, number = f"{base}_{number}", number + 1
        for source, factor in signal.sources:
            if factor != 1.0:
                scaled = self.put(
                    f"{source}_scaled",
                    nir.Scale(np.full(signal.shape, factor)),
                    Signal.of(source, signal.shape),
                )
                self.edges.append((scaled, key))
            else:
                self.edges.append((source, key))
        self.nodes[key] = node
        return key

    def _visit(self, node: fx.Node) -> None:
        operands = [a for a in node.all_input_nodes if a in self.signals]
        if not operands:
            return  # a constant
        kind = self._kind(node)
        rule = self._rule(kind)
        if rule is None:
            raise self.refuse(node, self._reason(kind))
        self.signals[node] = rule(self, node, self.signals[operands[0]])

    def module(self, node: fx.Node) -> nn.Module:
        """What a ``call_module`` calls."""
        return self.program.root.get_submodule(str(node.target))

    def _kind(self, node: fx.Node) -> str:
        return type(self.module(node)).__name__ if node.op == "call_module" else op_name(node.target)

    def refuse(self, node: fx.Node, why: str) -> ExportError:
        """What to raise where there is no way to say ``node``."""
        where = str(node.target) if node.op == "call_module" else module_path(node)
        where = where.removeprefix("network").removeprefix(".")
        return refusal(where or node.name, self._kind(node), why)

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """The shape of one sample at ``node``: what comes behind the batch."""
        sizes = list(node.meta["val"].shape)
        axes = [i for i, size in enumerate(sizes) if not isinstance(size, int)]
        if len(axes) != 1 or any(size != 1 for size in sizes[: axes[0]]):
            raise self.refuse(
                node, f"its shape {tuple(map(str, sizes))} is not that of one sample after another"
            )
        return tuple(sizes[axes[0] + 1 :])
