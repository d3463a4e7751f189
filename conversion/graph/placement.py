"""Where neurons go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from conversion.graph import ops
from conversion.graph.export import ConversionError, attribute
from conversion.graph.rewrite import depends_on_image, wants_neuron
from conversion.network.site import Activation, SiteSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from conversion.graph.export import Program
    from conversion.network.site import Site

    Build = Callable[[SiteSpec], Site]


@dataclass
class Placement:
    """Sites by node, with their paths.

    Attributes:
        replaced: nodes that a site stands for.
        before: nodes whose value a site carries to the consumers that want spikes.
        analog: activations without a neuron, and why.
    """

    replaced: dict[fx.Node, tuple[str, Site]] = field(default_factory=dict)
    before: dict[fx.Node, tuple[str, Site]] = field(default_factory=dict)
    analog: dict[str, str] = field(default_factory=dict)


def at_activations(
    program: Program, build: Build, stays_analog: Callable[[Program, fx.Node], str | None]
) -> Placement:
    """A neuron for each activation, nothing in front of other layers: the policy of the CNN methods."""
    placement = Placement()
    signals = depends_on_image(program)
    varying: set[fx.Node] = set()
    names: set[str] = set()
    for node in program.graph.nodes:
        varies = any(a in varying for a in node.all_input_nodes)
        if is_activation(node, signals):
            name = _site_name(program, node, names)
            reason = stays_analog(program, node)
            if reason is not None:
                placement.analog[name] = reason
            else:
                spec = _spec_of(program, node, name, static=not varies)
                placement.replaced[node] = name, build(spec)
                varies = True
        if varies:
            varying.add(node)
    return placement


def require_only_relu(program: Program) -> None:
    """Raise an error unless ReLU, max pooling and group norms are the only nonlinear operations.

    Group norms in front of a ReLU stay exact, as in the detectors of DCGS.
    """
    signals = depends_on_image(program)

    def is_signal(value: Any) -> bool:
        return isinstance(value, fx.Node) and value in signals

    for node in program.graph.nodes:
        if node not in signals or node.op != "call_function":
            continue
        name, role = ops.op_name(node.target), ops.role(node, is_signal)
        if name in ("relu", "group_norm") or name.startswith("max_pool"):
            continue
        if role not in ("nonlinear", "activation"):
            continue
        raise ConversionError(
            f"the policy 'official-cnn' is for networks whose only nonlinear operations are ReLU, max"
            f" pooling and group norms; this one has {name} at {ops.module_path(node) or node.name!r}: use"
            " policy='auto'"
        )


def at_operands(
    program: Program,
    build: Build,
    *,
    include_patch_embed: bool,
    include_head: bool,
    stands: Callable[[Activation], bool],
) -> Placement:
    """A neuron in front of every layer with weights and every operand of a product of two signals.

    Consumers of one tensor share its neuron. An operand that is nothing but shapes of what neurons send needs
    no second one.

    Args:
        program: the graph.
        build: makes the neuron of a site.
        include_patch_embed: whether the image itself, where it enters the first layer, becomes spikes.
        include_head: whether the layers that make the logits receive spikes.
        stands: whether a neuron can stand for such an activation where it feeds nothing but layers with
            weights; all others stay exact, and identity neurons send their results.
    """
    placement = Placement()
    signals = depends_on_image(program)

    def is_signal(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return any(is_signal(v) for v in value)
        return isinstance(value, fx.Node) and value in signals

    names: set[str] = set()
    heads = _heads(program, is_signal)
    varying: set[fx.Node] = set()
    spiking: set[fx.Node] = set()  # carries what neurons send, in another shape at most
    for node in program.graph.nodes:
        varies = any(a in varying for a in node.all_input_nodes)
        if node in signals and node.op in ("call_function", "call_module"):
            own = is_activation(node, signals) and stands(activation_of(node))
            if own and _feeds_only_weights(node, is_signal):
                name = _site_name(program, node, names)
                spec = _spec_of(program, node, name, static=not varies)
                placement.replaced[node] = name, build(spec)
                varies = True
                spiking.add(node)
            elif wants_neuron(node, is_signal) and (include_head or node not in heads):
                for operand in node.all_input_nodes:
                    if operand not in signals or operand in spiking or operand in placement.before:
                        varies = varies or operand in placement.before
                        continue
                    if operand is program.image and not include_patch_embed:
                        continue
                    name = _operand_name(program, node, operand, names)
                    spec = SiteSpec(
                        name=name,
                        activation=Activation(kind="identity"),
                        shape=program.sample_shape(operand),
                        producer=_producer(operand, is_signal),
                        static=operand not in varying,
                    )
                    placement.before[operand] = name, build(spec)
                    varies = True
            elif _only_reshapes(node, is_signal) and all(
                a in spiking for a in node.all_input_nodes if a in signals
            ):
                spiking.add(node)
        if varies:
            varying.add(node)
    return placement


def _feeds_only_weights(node: fx.Node, is_signal: Callable[[Any], bool]) -> bool:
    """Whether all that happens to ``node`` is shapes, and layers with weights behind them."""
    for user in node.users:
        if user.op == "output":
            return False
        if wants_neuron(user, is_signal):
            continue
        if not _only_reshapes(user, is_signal) or not _feeds_only_weights(user, is_signal):
            return False
    return True


def _only_reshapes(node: fx.Node, is_signal: Callable[[Any], bool]) -> bool:
    if node.op != "call_function" or ops.op_name(node.target) not in (ops.SHAPE | {"getitem"}):
        return False
    return all(is_signal(a) or ops.is_integer(a) for a in node.all_input_nodes)


def _producer(node: fx.Node, is_signal: Callable[[Any], bool]) -> str:
    """Name of the operation that made the values of ``node``, whatever shapes they have been given since."""
    while _only_reshapes(node, is_signal):
        node = next(a for a in node.all_input_nodes if is_signal(a))
    return ops.op_name(node.target)


def _heads(program: Program, is_signal: Callable[[Any], bool]) -> set[fx.Node]:
    """The layers that make the logits: the last ones with weights on the way to each part of the output."""
    found: set[fx.Node] = set()
    todo = [program.output]
    while todo:
        node = todo.pop()
        if node.op == "placeholder":
            continue
        if wants_neuron(node, is_signal):
            found.add(node)
            continue
        operands = [a for a in node.all_input_nodes if is_signal(a)]
        todo += operands if ops.op_name(node.target) == "cat" else operands[:1]
    return found


def _operand_name(program: Program, node: fx.Node, operand: fx.Node, names: set[str]) -> str:
    """A name in the module that the consumer belongs to: what the neuron feeds, or which operand it is."""
    path = str(node.target) if node.op == "call_module" else ops.module_path(node)
    parent, _, leaf = path.rpartition(".")
    if node.op == "call_module":
        base = ".".join(p for p in (parent, f"{leaf}_input") if p)
    else:
        place = "ab"[min(node.all_input_nodes.index(operand), 1)]
        base = ".".join(p for p in (path, f"{ops.op_name(node.target)}_{place}") if p)
    name, number = base, 0
    while name in names or attribute(program.root, name) is not None:
        number += 1
        name = f"{base}_{number}"
    names.add(name)
    return name


def _spec_of(program: Program, node: fx.Node, name: str, static: bool) -> SiteSpec:
    """What is known about the site of an activation."""
    return SiteSpec(
        name=name,
        activation=activation_of(node),
        shape=program.sample_shape(node),
        v_threshold=_trained_threshold(program, node),
        static=static,
    )


def is_activation(node: fx.Node, signals: set[fx.Node]) -> bool:
    """Whether ``node`` is an activation that a neuron can stand for."""
    if node.op != "call_function" or node not in signals:
        return False
    if ops.op_name(node.target) not in ops.ACTIVATIONS:
        return False
    return ops.role(node, lambda a: isinstance(a, fx.Node) and a in signals) == "activation"


def activation_of(node: fx.Node) -> Activation:
    """What an activation node computes."""
    name = ops.op_name(node.target)
    if name == "relu":
        return Activation(kind="relu")
    settings: list[Any] = list(node.args)
    if name == "fulgurite.qcfs":
        return Activation(kind="qcfs", levels=int(settings[2]), order=str(settings[3]))
    bounds: Any = settings[2] if len(settings) > 2 else node.kwargs.get("max_val", 1.0)
    return Activation(kind="clipped", high=6.0 if name == "relu6" else float(bounds))


def pool_before_activation(program: Program) -> None:
    """Move max poolings in front of the activation that feeds them alone.

    Activations rise monotonically, so they commute with the maximum; behind the pooling a neuron sees its
    result instead of having its spikes pooled (DCGS, arXiv 2503.00301).
    """
    signals = depends_on_image(program)
    for node in list(program.graph.nodes):
        if not is_activation(node, signals) or len(node.users) != 1:
            continue
        pool = next(iter(node.users))
        if ops.op_name(pool.target) != "max_pool2d" or pool.args[0] is not node:
            continue
        current = node.args[0]
        assert isinstance(current, fx.Node)
        with program.graph.inserting_after(pool):
            late = program.graph.call_function(node.target, (pool, *node.args[1:]), dict(node.kwargs))
        late.meta = {**node.meta, "val": pool.meta["val"]}
        pool.replace_all_uses_with(late, delete_user_cb=lambda user, own=late: user is not own)
        pool.replace_input_with(node, current)
        program.graph.erase_node(node)


def _trained_threshold(program: Program, node: fx.Node) -> nn.Parameter | None:
    if ops.op_name(node.target) != "fulgurite.qcfs":
        return None
    threshold = node.args[1]
    assert isinstance(threshold, fx.Node)
    value = attribute(program.root, str(threshold.target))
    if threshold.op != "get_attr" or not isinstance(value, nn.Parameter):
        raise ConversionError(
            f"the QCFS activation {ops.module_path(node) or node.name!r} has a threshold that is no"
            " parameter; use conversion.qcfs.QCFS, whose v_threshold is one"
        )
    return value


def _site_name(program: Program, node: fx.Node, names: set[str]) -> str:
    """The path of the module that was the activation, or a name in the module that called it."""
    path = ops.module_path(node)
    owner = attribute(program.root, path) if path else None
    if isinstance(owner, nn.Module):  # a module with nothing but the activation gives its place to the neuron
        tensors = [n for n, _ in owner.named_parameters()]
        own = not any(True for _ in owner.children()) and tensors in ([], ["v_threshold"])
    else:  # it stood inside a layer that the export has put back bare
        own = bool(path)
    label = ops.op_name(node.target).rpartition(".")[2]
    base = path if own else ".".join(p for p in (path, label) if p)
    name, number = base, 0
    while name in names or ((number or not own) and attribute(program.root, name) is not None):
        number += 1
        name = f"{base}_{number}"
    names.add(name)
    return name
