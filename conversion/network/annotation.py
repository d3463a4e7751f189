"""What is known about each call of a converted graph: enough to count its operations while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import fx

from conversion.network.clock import Clock
from conversion.network.layout import FIRST, Layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conversion.network.units import Domain, Form

Kind = Literal["conv", "linear", "matmul", "projection", "attention", "between", "unit", "neuron"]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What a node of a converted graph is to the counter.

    Attributes:
        name: path of the layer, or of the module that the operation belongs to.
        kind: a layer with weights, a product of two signals, a product of a signal and a constant
            (``"projection"``), fused attention, an operation that is evaluated exactly, or a neuron.
        form: of its inputs; see `conversion.network.units`.
        layout: where the output holds the batch.
        operands: which of the nodes in the arguments are signals.
        layouts: where they hold the batch.
        spikes: whether all of them are spikes, or running means of spikes.
    """

    name: str
    kind: Kind
    form: Form
    layout: Layout = FIRST
    operands: tuple[int, ...] = ()
    layouts: tuple[Layout, ...] = ()
    spikes: bool = False


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a network has to know about the method that it was converted with.

    Attributes:
        name: of the method.
        domain: whether neurons exchange steps or running means; see `conversion.network.units`.
        causal: whether a step depends on no later one, so that the steps can run in chunks.
        counted: kinds of layers that the paper's own energy ratio is made of; empty where it gives none.
        counts_own_step: whether this ratio takes what is sent at a step for known when it meets itself in a
            product of two signals.
    """

    name: str
    domain: Domain
    causal: bool
    counted: frozenset[str] = frozenset()
    counts_own_step: bool = False


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """What belongs to a converted graph beside its nodes and modules.

    Attributes:
        clock: the number of steps that all units share.
        traits: of the method.
        operations: of each call in the graph, in order, what has to be counted; None if nothing has. By
            position and not by node, so that it holds for copies of the graph, too.
    """

    clock: Clock
    traits: Traits
    operations: tuple[Operation | None, ...]


def flat(values: Any) -> Iterator[fx.Node]:
    """The nodes among arguments, as often as they occur."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from flat(value)
        elif isinstance(value, fx.Node):
            yield value
