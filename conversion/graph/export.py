"""From a model to a functional graph: export, clean up, and put the layers back as modules.

``torch.export`` sees through every Python construct that timm uses; what comes out are operations without
side effects on named parameters.
"""

from __future__ import annotations

import copy
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import fx

from conversion.graph.canonical import canonical
from conversion.graph.constants import separate_constants
from conversion.graph.decompose import decomposed
from conversion.graph.layers import restore_layers
from conversion.graph.program import ConversionError, Program, attribute, is_boundary
from conversion.graph.rectifiers import name_rectifiers
from conversion.graph.wrappers import logits_of, pass_through

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn


def export(model: nn.Module, example: Tensor) -> Program:
    """A `Program` of a copy of ``model``, which must be in evaluation mode.

    Args:
        model: maps ``[B, ...]`` to ``[B, K]`` or ``[B, N, K]``.
        example: samples ``[B, ...]``, B of at least 2, on the device of the model.

    Raises:
        ConversionError: the model cannot be exported.
    """
    root = copy.deepcopy(model)
    pass_through(root)
    whole = root.forward
    root.forward = lambda x: logits_of(whole(x))
    try:
        exported = _exported(root, example)
    finally:
        del root.forward
    graph = exported.graph
    graph.set_codegen(fx.graph.CodeGen())
    _carry_constants(graph, exported, root)
    graph.owning_module = cast("fx.GraphModule", root)  # where names are looked up when it is checked
    canonical(graph)
    name_rectifiers(graph, root)
    restore_layers(graph, root)
    program = Program(root, graph, tuple(example.shape[1:]))
    separate_constants(program)
    graph.eliminate_dead_code(is_impure_node=is_boundary)
    return program


def _exported(root: nn.Module, example: Tensor) -> fx.GraphModule:
    """The functional graph of ``root`` over a batch of any size."""
    try:
        with torch.no_grad(), warnings.catch_warnings(), without_places():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                root, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False
            )
            return decomposed(program)
    except Exception as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise ConversionError(
            f"{type(root).__name__} cannot be exported for images {tuple(example.shape[1:])}"
            f" ({type(error).__name__}: {text[0]}); the conversion works on the graph of torch.export, which"
            " must not depend on values of the image, nor on the size of the batch (x.shape[0] stays free,"
            " len(x) does not)"
        ) from error


@contextmanager
def without_places() -> Iterator[None]:
    """Graphs that do not say where in which file an operation was called, which nobody asks and takes long.

    The traceback of every operation, and of every size that is computed, is a quarter of an export.
    """
    before = fx.config.do_not_emit_stack_traces
    fx.config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        fx.config.do_not_emit_stack_traces = before


def _carry_constants(graph: fx.Graph, exported: fx.GraphModule, root: nn.Module) -> None:
    """Constants that export made out of Python values become buffers that no state dict holds."""
    for node in graph.nodes:
        if node.op != "get_attr" or attribute(root, node.target) is not None:
            continue
        value = attribute(exported, node.target)
        name = "constant_" + "".join(c if c.isalnum() else "_" for c in node.target)
        root.register_buffer(name, value.detach().clone(), persistent=False)
        node.target = name
