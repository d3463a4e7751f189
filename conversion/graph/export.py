"""From a model to a functional graph: export, clean up, and put the layers back as modules.

``torch.export`` sees through every Python construct that timm uses; what comes out are operations without
side effects on named parameters. Convolutions, linear layers and batch norms become modules again, so that
hooks, ``train()``, ``SyncBatchNorm`` and state-dict keys work as in the source.
"""

from __future__ import annotations

import copy
import operator
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from conversion.graph.ops import module_path, op_name

if TYPE_CHECKING:
    from collections.abc import Iterator

CONVOLUTIONS: dict[str, type[nn.Module]] = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}
NORMS = {3: nn.BatchNorm1d, 2: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
RESHAPE = torch.ops.aten.reshape.default


class ConversionError(RuntimeError):
    """A model cannot be converted; the message says why and what to do. The model is unchanged."""


@dataclass
class Program:
    """A functional graph over ``[B, ...]`` and the copy of the model whose parameters it names.

    Attributes:
        root: the copy; parameters and layers stand at the paths that they had.
        graph: one placeholder, one output, calls in between; nodes carry example values in ``meta["val"]``.
        input_shape: shape of one image, ``(C, H, W)``.
    """

    root: nn.Module
    graph: fx.Graph
    input_shape: tuple[int, ...]

    @property
    def image(self) -> fx.Node:
        """The node of the images."""
        node: fx.Node = next(n for n in self.graph.nodes if n.op == "placeholder")
        return node

    @property
    def output(self) -> fx.Node:
        """The node of the logits ``[B, K]``, or ``[B, N, K]`` of N positions."""
        last = next(iter(reversed(self.graph.nodes)))
        value = last.args[0]
        while isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        if not isinstance(value, fx.Node) or value.meta["val"].dim() not in (2, 3):
            raise ConversionError(
                "the source must return logits [B, K], or [B, N, K] for N positions of an image; convert the"
                " part of the network that makes them, or join what it returns"
            )
        return value

    def batch_axis(self, node: fx.Node) -> int:
        """The axis of ``node`` that grows with the batch."""
        sizes = node.meta["val"].shape
        axes = [i for i, size in enumerate(sizes) if not isinstance(size, int)]
        if len(axes) != 1:
            raise ConversionError(
                f"node {node.name!r} of shape {tuple(map(str, sizes))} has {len(axes)} axes that depend on"
                " the batch; a neuron needs exactly one"
            )
        return axes[0]

    def sample_shape(self, node: fx.Node) -> tuple[int, ...]:
        """Shape of ``node`` for one image, the batch axis left out."""
        axis = self.batch_axis(node)
        return tuple(int(s) for i, s in enumerate(node.meta["val"].shape) if i != axis)


def export(model: nn.Module, example: Tensor) -> Program:
    """A `Program` of a copy of ``model``, which must be in evaluation mode.

    Args:
        model: maps ``[B, C, H, W]`` to ``[B, K]`` or ``[B, N, K]``.
        example: images ``[B, C, H, W]``, B of at least 2, on the device of the model.

    Raises:
        ConversionError: the model cannot be exported.
    """
    root = copy.deepcopy(model)
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(root, (example,), dynamic_shapes=dynamic, strict=False)
            exported = program.run_decompositions({}).module()
    except Exception as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise ConversionError(
            f"{type(model).__name__} cannot be exported for images {tuple(example.shape[1:])}"
            f" ({type(error).__name__}: {text[0]}); the conversion works on the graph of torch.export, which"
            " must not depend on values of the image, nor on the size of the batch (x.shape[0] stays free,"
            " len(x) does not)"
        ) from error
    assert isinstance(exported, fx.GraphModule)
    graph = exported.graph
    graph.set_codegen(fx.graph.CodeGen())
    for node in list(graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            graph.erase_node(node)
    _carry_constants(graph, exported, root)
    graph.owning_module = root  # type: ignore[assignment]  # where names are looked up when it is checked
    _plain_views(graph)
    _plain_types(graph)
    _single_norms(graph)
    _restore_modules(graph, root)
    graph.eliminate_dead_code(is_impure_node=is_boundary)
    return Program(root, graph, tuple(example.shape[1:]))


def is_boundary(node: fx.Node) -> bool:
    """Whether ``node`` must stay in a graph that nothing uses it in: only inputs and outputs have effects."""
    return node.op in ("placeholder", "output")


def attribute(root: nn.Module, path: str) -> Any:
    """What stands at ``path``, None if nothing does."""
    value: Any = root
    for name in path.split("."):
        if not hasattr(value, name):
            return None
        value = getattr(value, name)
    return value


def place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put ``module`` at ``path``, making the modules above it where they are missing."""
    *parents, name = path.split(".")
    at = root
    for parent in parents:
        if not isinstance(getattr(at, parent, None), nn.Module):
            at.add_module(parent, nn.Module())
        at = at.get_submodule(parent)
    if name in at._modules:
        del at._modules[name]
    at.add_module(name, module)


def _carry_constants(graph: fx.Graph, exported: fx.GraphModule, root: nn.Module) -> None:
    """Constants that export made out of Python values become buffers that no state dict holds."""
    for node in graph.nodes:
        if node.op != "get_attr" or attribute(root, node.target) is not None:
            continue
        value = attribute(exported, node.target)
        name = "constant_" + "".join(c if c.isalnum() else "_" for c in node.target)
        root.register_buffer(name, value.detach().clone(), persistent=False)
        node.target = name


def _plain_views(graph: fx.Graph) -> None:
    """``view`` assumes the strides of the traced program, which change when units are put in."""
    for node in graph.nodes:
        if node.op == "call_function" and op_name(node.target) in ("view", "_unsafe_view"):
            node.target = RESHAPE


def _plain_types(graph: fx.Graph) -> None:
    """``type_as`` takes nothing of its second operand but the dtype, which is known."""
    for node in list(graph.nodes):
        if node.op != "call_function" or op_name(node.target) != "type_as":
            continue
        source, dtype = node.args[0], node.meta["val"].dtype
        if source.meta["val"].dtype != dtype:
            with graph.inserting_before(node):
                cast = graph.call_function(torch.ops.aten._to_copy.default, (source,), {"dtype": dtype})
            cast.meta = node.meta
            source = cast
        node.replace_all_uses_with(source)
        graph.erase_node(node)


def _single_norms(graph: fx.Graph) -> None:
    """Operations that give (output, statistics...) of which only the output is used: one node each."""
    for node in list(graph.nodes):
        if node.target is not operator.getitem or node.args[1] != 0:
            continue
        source = node.args[0]
        name = op_name(source.target) if isinstance(source, fx.Node) else ""
        target: Any
        args: tuple[Any, ...] = source.args
        if name == "_native_batch_norm_legit_no_training":
            x, weight, bias, mean, var, momentum, eps = args
            target = torch.ops.aten.batch_norm.default
            args = (x, weight, bias, mean, var, False, momentum, eps, False)
        elif name == "native_layer_norm":
            target = torch.ops.aten.layer_norm.default
        elif name == "native_group_norm":
            x, weight, bias, _, _, _, groups, eps = args
            target, args = torch.ops.aten.group_norm.default, (x, groups, weight, bias, eps)
        else:
            continue
        with graph.inserting_before(source):
            single = graph.call_function(target, tuple(args))
        single.meta = {**source.meta, "val": node.meta["val"]}
        node.replace_all_uses_with(single)
        graph.erase_node(node)
        if not source.users:
            graph.erase_node(source)


def _restore_modules(graph: fx.Graph, root: nn.Module) -> None:
    """Turn calls of convolutions, linear layers and batch norms into calls of modules at their old paths."""
    made: dict[str, tuple[str, nn.Module]] = {}  # path -> settings, module
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        built = _layer(node, root)
        if built is None:
            continue
        path, module = built
        settings = repr(module)
        if path in made and made[path][0] != settings:
            continue  # one set of weights used in two ways stays a function
        if path not in made:
            module.train(False)
            place(root, path, module)
            made[path] = settings, module
        with graph.inserting_before(node):
            call = graph.create_node("call_module", path, (node.args[0],))
        call.meta = {**node.meta, "role": "affine" if isinstance(module, _BatchNorm) else "weighted"}
        node.replace_all_uses_with(call)
        graph.erase_node(node)


def _layer(node: fx.Node, root: nn.Module) -> tuple[str, nn.Module] | None:
    """Path and module that stand for ``node``, None if it is no plain layer of its source."""
    name = op_name(node.target)
    if name in CONVOLUTIONS:
        return _convolution(node, root, CONVOLUTIONS[name])
    if name == "linear":
        path = _owner(node, root, {"weight": 1, "bias": 2})
        if path is None:
            return None
        weight, bias = _weight_and_bias(root, path)
        with torch.device("meta"):
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        return path, _filled(linear, weight=weight, bias=bias)
    if name == "batch_norm":
        path = _owner(node, root, {"weight": 1, "bias": 2, "running_mean": 3, "running_var": 4})
        source = root.get_submodule(path) if path is not None else None
        if path is None or not isinstance(source, _BatchNorm):
            return None
        kind = NORMS[len(node.meta["val"].shape)]
        with torch.device("meta"):
            norm = kind(source.num_features, source.eps, source.momentum, source.affine)
        parts = {k: getattr(source, k) for k in ("weight", "bias", *dict(norm.named_buffers()))}
        return path, _filled(norm, **parts)
    return None


def _convolution(node: fx.Node, root: nn.Module, kind: type[nn.Module]) -> tuple[str, nn.Module] | None:
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
        conv = kind(
            weight.shape[1] * groups,
            weight.shape[0],
            tuple(weight.shape[2:]),
            *sizes,
            groups=groups,
            bias=bias is not None,
        )
    return path, _filled(conv, weight=weight, bias=bias)


def _weight_and_bias(root: nn.Module, path: str) -> tuple[Tensor, Tensor | None]:
    return attribute(root, f"{path}.weight"), attribute(root, f"{path}.bias")


def _owner(node: fx.Node, root: nn.Module, operands: dict[str, int]) -> str | None:
    """Path of the module that owns the operands of ``node`` under these names, if it owns nothing else.

    Weights that several modules share have one name in the graph; the module that was called is asked first.
    """
    args = [*node.args, *[None] * 8]
    first = args[operands["weight"]]
    if not isinstance(first, fx.Node) or first.op != "get_attr":
        return None
    given = {n: args[i] if len(node.args) > i else node.kwargs.get(n) for n, i in operands.items()}
    values = {
        n: attribute(root, str(a.target)) if isinstance(a, fx.Node) and a.op == "get_attr" else a
        for n, a in given.items()
    }
    known = {*operands, "num_batches_tracked"}
    for path in (module_path(node), str(first.target).rpartition(".")[0]):
        owner = attribute(root, path) if path else None
        if not isinstance(owner, nn.Module) or any(attribute(owner, n) is not v for n, v in values.items()):
            continue
        if all(n in known for n, _ in _own_tensors(owner)):
            return path
    return None


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=True)
    yield from module.named_buffers(recurse=True)


def _filled(module: nn.Module, **tensors: Tensor | None) -> nn.Module:
    """``module`` with these parameters and buffers in place of its own."""
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if name in module._parameters:
            module._parameters[name] = tensor  # type: ignore[assignment]
        else:
            module._buffers[name] = tensor
    return module
