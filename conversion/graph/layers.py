"""Convolutions, linear layers and batch norms of an exported graph as modules again.

Hooks, ``train()``, ``SyncBatchNorm`` and the keys of state dicts then work as in the source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from conversion.graph.ops import module_path, op_name
from conversion.graph.program import attribute, place

if TYPE_CHECKING:
    from collections.abc import Callable

CONVOLUTIONS: dict[str, type[nn.Module]] = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}
NORMS = {3: nn.BatchNorm1d, 2: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


@dataclass(frozen=True)
class Layer:
    """A module for a call of an operator, and the path of the module of the source that it was."""

    path: str
    module: nn.Module


def restore_layers(graph: fx.Graph, root: nn.Module) -> None:
    """Turn calls of convolutions, linear layers and batch norms into calls of modules at their old paths."""
    made: dict[str, str] = {}  # settings of the module at a path
    for node in list(graph.nodes):
        build = LAYERS.get(op_name(node.target)) if node.op == "call_function" else None
        layer = None if build is None else build(node, root)
        if layer is None:
            continue
        settings = repr(layer.module)
        if made.get(layer.path, settings) != settings:
            continue  # one set of weights used in two ways stays a function
        if layer.path not in made:
            made[layer.path] = settings
            place(root, layer.path, layer.module.eval())
        with graph.inserting_before(node):
            call = graph.create_node("call_module", layer.path, (node.args[0],))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.erase_node(node)


def _linear(node: fx.Node, root: nn.Module) -> Layer | None:
    path = _owner(node, root, {"weight": 1, "bias": 2})
    if path is None:
        return None
    weight, bias = _weight_and_bias(root, path)
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    return Layer(path, _filled(linear, weight=weight, bias=bias))


def _batch_norm(node: fx.Node, root: nn.Module) -> Layer | None:
    path = _owner(node, root, {"weight": 1, "bias": 2, "running_mean": 3, "running_var": 4})
    source = root.get_submodule(path) if path is not None else None
    if path is None or not isinstance(source, _BatchNorm):
        return None
    kind = NORMS[len(node.meta["val"].shape)]
    with torch.device("meta"):
        norm = kind(source.num_features, source.eps, source.momentum, source.affine)
    parts = {k: getattr(source, k) for k in ("weight", "bias", *dict(norm.named_buffers()))}
    return Layer(path, _filled(norm, **parts))


def _convolution(node: fx.Node, root: nn.Module) -> Layer | None:
    path = _owner(node, root, {"weight": 1, "bias": 2})
    if path is None:
        return None
    weight, bias = _weight_and_bias(root, path)
    settings: dict[str, Any] = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    settings |= dict(zip(settings, node.args[3:], strict=False)) | dict(node.kwargs)
    space, groups = weight.dim() - 2, int(settings["groups"])
    sizes = [
        v if isinstance(v, int | str) else tuple(v) * (space // len(v))
        for v in (settings["stride"], settings["padding"], settings["dilation"])
    ]
    with torch.device("meta"):
        conv = CONVOLUTIONS[op_name(node.target)](
            weight.shape[1] * groups,
            weight.shape[0],
            tuple(weight.shape[2:]),
            *sizes,
            groups=groups,
            bias=bias is not None,
        )
    return Layer(path, _filled(conv, weight=weight, bias=bias))


# each gives the layer of a call, None if it is no plain layer of its source
LAYERS: dict[str, Callable[[fx.Node, nn.Module], Layer | None]] = {
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    "linear": _linear,
    "batch_norm": _batch_norm,
}


def _weight_and_bias(root: nn.Module, path: str) -> tuple[Tensor, Tensor | None]:
    return attribute(root, f"{path}.weight"), attribute(root, f"{path}.bias")


def _owner(node: fx.Node, root: nn.Module, operands: dict[str, int]) -> str | None:
    """Path of the module that owns the operands of ``node`` under these names, if it owns nothing else.

    Weights that several modules share have one name in the graph; the module that was called is asked first.
    """
    weight = node.args[operands["weight"]] if len(node.args) > operands["weight"] else None
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return None
    values = {name: _operand(node, root, name, index) for name, index in operands.items()}
    for path in (module_path(node), str(weight.target).rpartition(".")[0]):
        owner = attribute(root, path) if path else None
        if isinstance(owner, nn.Module) and _owns(owner, values):
            return path
    return None


def _operand(node: fx.Node, root: nn.Module, name: str, index: int) -> Any:
    """The tensor, or the constant, that is given to ``node`` as an operand."""
    given = node.args[index] if len(node.args) > index else node.kwargs.get(name)
    if isinstance(given, fx.Node) and given.op == "get_attr":
        return attribute(root, str(given.target))
    return given


def _owns(owner: nn.Module, values: dict[str, Any]) -> bool:
    """Whether a module holds these tensors and no others."""
    held = (*owner.named_parameters(), *owner.named_buffers())
    same = all(attribute(owner, name) is value for name, value in values.items())
    return same and all(name in {*values, "num_batches_tracked"} for name, _ in held)


def _filled(module: nn.Module, **tensors: Tensor | None) -> nn.Module:
    """``module`` with these parameters and buffers in place of its own."""
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if name in module._parameters:
            module._parameters[name] = cast("nn.Parameter", tensor)
        else:
            module._buffers[name] = tensor
    return module
