"""ReLU and clipped ReLU in other words: fragments of a graph that compute them become one operation each.

``x.clamp(min=0)``, ``torch.maximum(x, zero)``, ``torch.where(x > 0, x, 0)``, ``x * (x > 0)`` and the like are
activations that neurons can stand for. They are not told apart by how they are written but by what they
compute: every fragment of elementwise operations on one tensor, in which something bends, is evaluated on a
grid of numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from conversion.graph.ops import FILLED, filled_with, op_name
from conversion.graph.program import attribute
from conversion.graph.tables import names

if TYPE_CHECKING:
    from collections.abc import Iterator

ATEN = torch.ops.aten


# elementwise operations with a bend or a jump: without one of them nothing is a ReLU
BENT = names(
    """
    abs absolute gt greater ge greater_equal lt less le less_equal where masked_fill maximum minimum fmax fmin
    clamp clip clamp_min clamp_max threshold sign sgn heaviside relu relu6 hardtanh leaky_relu elu celu
    index_put max min
    """
)
SMOOTH = names(
    """
    mul multiply add sub subtract rsub neg negative div divide true_divide _to_copy to clone contiguous alias
    detach lift_fresh_copy logical_not bitwise_not logical_and bitwise_and
    """
)
RESHAPED = names(
    "expand reshape view unsqueeze expand_as view_as clone detach alias _to_copy to lift_fresh_copy"
)
MOST = 8  # roots of a fragment that are tried, from the nearest on

_STEPS = torch.logspace(-8, 4, 49, dtype=torch.float64)
GRID = torch.cat([-_STEPS, torch.linspace(-12, 12, 385, dtype=torch.float64), _STEPS])


def name_rectifiers(graph: fx.Graph, root: nn.Module) -> None:
    """Put ``relu`` or ``hardtanh`` in the place of every fragment that computes it.

    Weights and buffers that are saved take no part, since a network is rebuilt with others.
    """
    fragments = Fragments(graph, root)
    put: dict[fx.Node, fx.Node] = {}
    for node, source, high in list(fragments.rectifiers()):
        source = put.get(source, source)
        with graph.inserting_after(node):
            if high is None:
                new = graph.call_function(ATEN.relu.default, (source,))
            else:
                new = graph.call_function(ATEN.hardtanh.default, (source, 0.0, high))
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        put[node] = new


class Fragments:
    """The parts of a graph that compute, element by element, a function of one tensor.

    Attributes:
        roots: of each tensor those that it is an elementwise function of, itself first, then the nearest.
        bent: those whose function has a bend between them and their root.
    """

    def __init__(self, graph: fx.Graph, root: nn.Module) -> None:
        self.graph, self.root = graph, root
        self.saved = set(root.state_dict())
        self.roots: dict[fx.Node, list[fx.Node]] = {}
        self.bent: set[fx.Node] = set()
        self.constants: dict[fx.Node, Tensor] = {}
        for node in graph.nodes:
            self._read(node)

    def rectifiers(self) -> Iterator[tuple[fx.Node, fx.Node, float | None]]:
        """Each fragment that rectifies: its last node, its root, and the upper bound if it has one.

        Of several roots the farthest: what lies between takes part, such as a second bound.
        """
        for node, roots in self.roots.items():
            if node not in self.bent:
                continue
            for source in reversed(roots[2:] if _is_named(node) else roots[1:]):
                found = self._rectifies(node, source)
                if found is not None:
                    yield node, source, None if found == torch.inf else found
                    break

    def _read(self, node: fx.Node) -> None:
        if node.op == "output":
            return
        constant = self._constant(node)
        if constant is not None:
            self.constants[node] = constant
            return
        self.roots[node] = [node]
        if node.op != "call_function" or not _is_elementwise(node):
            return
        inputs = [a for a in node.all_input_nodes if a not in self.constants]
        if not inputs or any(a not in self.roots for a in inputs):
            return
        first, *others = (self.roots[a] for a in inputs)
        self.roots[node] += [r for r in first if all(r in roots for roots in others)][:MOST]
        if op_name(node.target) in BENT or any(a in self.bent for a in inputs):
            self.bent.add(node)

    def _constant(self, node: fx.Node) -> Tensor | None:
        """The number that ``node`` holds in every place, None if it is none."""
        if node.op == "get_attr":
            return self._uniform(str(node.target))
        if node.op != "call_function":
            return None
        name = op_name(node.target)
        if name in FILLED or name == "scalar_tensor":
            value = node.args[0] if name == "scalar_tensor" else filled_with(node)
            return torch.tensor(value, dtype=torch.float64) if isinstance(value, int | float) else None
        source = node.args[0] if node.args else None
        return self.constants.get(source) if name in RESHAPED and isinstance(source, fx.Node) else None

    def _uniform(self, path: str) -> Tensor | None:
        value = attribute(self.root, path)
        if not isinstance(value, Tensor) or isinstance(value, nn.Parameter) or path in self.saved:
            return None
        if not value.numel() or bool((value != value.reshape(-1)[0]).any()):
            return None
        number: Tensor = value.reshape(-1)[0].detach().cpu()
        return number.double() if number.is_floating_point() else number

    def _rectifies(self, node: fx.Node, source: fx.Node) -> float | None:
        """The upper bound of the rectifier that ``node`` is of ``source``, infinity without one; None: no."""
        before, after = (n.meta.get("val") for n in (source, node))
        if not isinstance(before, Tensor) or not isinstance(after, Tensor):
            return None
        if before.shape != after.shape or before.dtype != after.dtype or not before.is_floating_point():
            return None
        y = self._value(node, {source: GRID})
        if not isinstance(y, Tensor) or y.shape != GRID.shape or not y.is_floating_point():
            return None
        if _same(y, GRID.clamp(min=0.0)):
            return torch.inf
        high = float(y.max())
        bounded = 0.0 < high < float(GRID.max()) and _same(y, GRID.clamp(0.0, high))
        return float(f"{high:.7g}") if bounded else None

    def _value(self, node: fx.Node, known: dict[fx.Node, Any]) -> Any:
        """What ``node`` is where its root is the grid; None where that cannot be told."""
        if node in self.constants:
            return self.constants[node]
        if node not in known:
            given = {a: self._value(a, known) for a in node.all_input_nodes}
            try:
                args, kwargs = fx.map_arg((node.args, node.kwargs), given.__getitem__)
                kwargs = {k: v for k, v in kwargs.items() if k != "device"}
                target: Any = node.target
                known[node] = target(*args, **kwargs)
            except (RuntimeError, TypeError, ValueError):
                known[node] = None
        return known[node]


def _is_elementwise(node: fx.Node) -> bool:
    name = op_name(node.target)
    if name in ("max", "min"):
        return getattr(node.target, "_overloadname", "") == "other"
    return name in BENT or name in SMOOTH


def _is_named(node: fx.Node) -> bool:
    """Whether ``node`` is a rectifier by name already."""
    return op_name(node.target) in ("relu", "relu6")


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a.to(b), b, rtol=1e-6, atol=1e-10)
