"""Where neurons go: for each activation, or in front of each operand that weights or a signal multiply."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from conversion.graph import ops
from conversion.graph.activations import activation_of, trained_threshold
from conversion.graph.names import SiteNames
from conversion.graph.signals import Signals
from conversion.network.site import Activation, SiteSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

    from conversion.graph.program import Program
    from conversion.network.site import Site

    Build = Callable[[SiteSpec], Site]


class Placed(NamedTuple):
    """A site and its path in the converted network."""

    path: str
    site: Site


@dataclass
class Placement:
    """Sites by node.

    Attributes:
        replaced: activations that a site replaces.
        before: nodes whose value a site sends to the consumers that want spikes.
        analog: activations without a neuron, and why.
    """

    replaced: dict[fx.Node, Placed] = field(default_factory=dict)
    before: dict[fx.Node, Placed] = field(default_factory=dict)
    analog: dict[str, str] = field(default_factory=dict)

    @property
    def sites(self) -> list[Site]:
        """All sites."""
        return [placed.site for placed in (*self.replaced.values(), *self.before.values())]


def at_activations(
    program: Program, build: Build, stays_analog: Callable[[Program, fx.Node], str | None]
) -> Placement:
    """A neuron for each activation, nothing in front of other layers: the policy of the CNN methods.

    Args:
        program: the graph.
        build: makes the neuron of a site.
        stays_analog: why an activation gets no neuron, None if it gets one.
    """
    placer = _Placer(program, build)
    for node in program.graph.nodes:
        if placer.signals.is_activation(node):
            name = placer.names.of_activation(node)
            reason = stays_analog(program, node)
            if reason is None:
                placer.replace(node, name)
            else:
                placer.placement.analog[name] = reason
        placer.advance(node)
    return placer.placement


def at_operands(
    program: Program,
    build: Build,
    *,
    include_patch_embed: bool,
    include_head: bool,
    replaces: Callable[[Activation], bool],
) -> Placement:
    """A neuron in front of every layer with weights and every operand of a product of two signals.

    Consumers of one tensor share its neuron. An operand that is nothing but shapes of what neurons send needs
    no second one.

    Args:
        program: the graph.
        build: makes the neuron of a site.
        include_patch_embed: whether the image itself, where it enters the first layer, becomes spikes.
        include_head: whether the layers that make the logits receive spikes.
        replaces: whether a neuron can replace such an activation where it feeds nothing but layers with
            weights; all others stay exact, and identity neurons send their results.
    """
    placer = _Placer(program, build)
    signals = placer.signals
    exempt: set[fx.Node] = set() if include_head else _heads(program, signals)
    analog: set[fx.Node] = set() if include_patch_embed else {program.image}
    for node in program.graph.nodes:
        if node not in signals or node.op not in ("call_function", "call_module"):
            pass
        elif _is_replaced(node, signals, replaces):
            placer.replace(node, placer.names.of_activation(node))
        elif signals.wants_spikes(node) and node not in exempt:
            placer.send_operands(node, analog)
        elif signals.only_reshapes(node) and all(a in placer.spiking for a in signals.of(node)):
            placer.spiking.add(node)
        placer.advance(node)
    return placer.placement


class _Placer:
    """Puts neurons into a program, node by node in order, and keeps what is known so far.

    Attributes:
        varying: nodes behind a neuron, whose values differ from step to step.
        spiking: nodes that carry what neurons send, in another shape at most.
    """

    def __init__(self, program: Program, build: Build) -> None:
        self.program, self.build = program, build
        self.placement = Placement()
        self.signals, self.names = Signals(program), SiteNames(program)
        self.varying: set[fx.Node] = set()
        self.spiking: set[fx.Node] = set()

    def replace(self, node: fx.Node, name: str) -> None:
        """A neuron for the activation ``node``."""
        spec = SiteSpec(
            name=name,
            activation=activation_of(node),
            shape=self.program.sample_shape(node),
            v_threshold=trained_threshold(self.program, node),
            static=not self._varies(node),
        )
        self.placement.replaced[node] = Placed(name, self.build(spec))
        self.spiking.add(node)

    def send_operands(self, node: fx.Node, analog: set[fx.Node]) -> None:
        """Identity neurons for those operands of ``node`` that are neither spikes nor ``analog``."""
        for operand in self.signals.of(node):
            if operand in self.spiking or operand in self.placement.before or operand in analog:
                continue
            name = self.names.of_operand(node, operand)
            spec = SiteSpec(
                name=name,
                activation=Activation(kind="identity"),
                shape=self.program.sample_shape(operand),
                producer=_producer(operand, self.signals),
                static=operand not in self.varying,
            )
            self.placement.before[operand] = Placed(name, self.build(spec))
        if any(a in self.placement.before for a in node.all_input_nodes):
            self.varying.add(node)

    def advance(self, node: fx.Node) -> None:
        """Note whether ``node`` varies over time, now that its neurons are known."""
        if node in self.placement.replaced or self._varies(node):
            self.varying.add(node)

    def _varies(self, node: fx.Node) -> bool:
        return any(a in self.varying for a in node.all_input_nodes)


def _is_replaced(node: fx.Node, signals: Signals, replaces: Callable[[Activation], bool]) -> bool:
    possible = signals.is_activation(node) and replaces(activation_of(node))
    return possible and signals.feeds_only_weights(node)


def _producer(node: fx.Node, signals: Signals) -> str:
    """Name of the operation that made the values of ``node``, whatever shapes they have been given since."""
    while signals.only_reshapes(node):
        node = signals.of(node)[0]
    return ops.op_name(node.target)


def _heads(program: Program, signals: Signals) -> set[fx.Node]:
    """The layers that make the logits: the last ones with weights on the way to each part of the output."""
    found: set[fx.Node] = set()
    todo = [program.output]
    while todo:
        node = todo.pop()
        if node.op == "placeholder":
            continue
        if signals.wants_spikes(node):
            found.add(node)
            continue
        operands = signals.of(node)
        todo += operands if ops.op_name(node.target) == "cat" else operands[:1]
    return found
