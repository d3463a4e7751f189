"""The activations of a source that neurons can replace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx, nn

from conversion.graph import ops
from conversion.graph.program import ConversionError, attribute
from conversion.graph.signals import Signals
from conversion.network.site import Activation

if TYPE_CHECKING:
    from conversion.graph.program import Program


MAX_POOLS = ("max_pool1d", "max_pool2d", "max_pool3d")


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


def trained_threshold(program: Program, node: fx.Node) -> nn.Parameter | None:
    """The threshold that a QCFS source was trained with, None for other activations.

    Raises:
        ConversionError: a QCFS activation whose threshold is no parameter.
    """
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


def pool_before_activation(program: Program) -> None:
    """Move max poolings in front of the activation that feeds them alone.

    Activations rise monotonically, so they commute with the maximum; behind the pooling a neuron sees its
    result instead of having its spikes pooled (DCGS, arXiv 2503.00301).
    """
    signals = Signals(program)
    for node in list(program.graph.nodes):
        if not signals.is_activation(node) or len(node.users) != 1:
            continue
        pool = next(iter(node.users))
        if ops.op_name(pool.target) not in MAX_POOLS or pool.args[0] is not node:
            continue
        current = node.args[0]
        assert isinstance(current, fx.Node)
        with program.graph.inserting_after(pool):
            late = program.graph.call_function(node.target, (pool, *node.args[1:]), dict(node.kwargs))
        late.meta = {**node.meta, "val": pool.meta["val"]}
        pool.replace_all_uses_with(late, delete_user_cb=lambda user, own=late: user is not own)
        pool.replace_input_with(node, current)
        program.graph.erase_node(node)


def require_only_relu(program: Program) -> None:
    """Raise an error unless ReLU, max pooling and group norms are the only nonlinear operations.

    Group norms in front of a ReLU stay exact, as in the detectors of DCGS.
    """
    signals = Signals(program)
    for node in program.graph.nodes:
        if node not in signals or node.op != "call_function":
            continue
        name, role = ops.op_name(node.target), signals.role(node)
        if name in ("relu", "group_norm") or name.startswith("max_pool"):
            continue
        if role not in ("nonlinear", "activation"):
            continue
        raise ConversionError(
            f"the policy 'official-cnn' is for networks whose only nonlinear operations are ReLU, max"
            f" pooling and group norms; this one has {name} at {ops.module_path(node) or node.name!r}: use"
            " policy='auto'"
        )
