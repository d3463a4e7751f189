"""``torch.export``: a graph of PyTorch operators, and the file ``.pt2`` that holds it."""

from __future__ import annotations

import inspect
import io
import json
import logging
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.export import Dim, ExportedProgram

from conversion.graph.export import without_places
from spiking.qcfs import composed_qcfs
from zoo.errors import ExportError
from zoo.export.compare import check
from zoo.export.plan import plan_of
from zoo.export.request import Exported

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from zoo.export.ports import Interface
    from zoo.export.request import Request

MOST = 1024  # samples at a time
OWN = {torch.ops.fulgurite.qcfs.default: composed_qcfs}  # operators of ours, which other programs do not know
METADATA_FILE = "fulgurite.json"  # in a .pt2


def write(model: nn.Module, path: Path, request: Request) -> Exported:
    """Write ``model`` as a ``.pt2``; see `zoo.export.formats.Format`.

    `torch.export.load` reads it; ``extra_files={"fulgurite.json": ""}`` gets what it says about the network.
    """
    plan = plan_of(model, request)
    program = trace(plan.traced, request)
    request.say("writing")
    with quietly():
        content = io.BytesIO()  # PyTorch's own writer of files ends the whole process where the disk is full
        torch.export.save(program, content, extra_files={METADATA_FILE: json.dumps(dict(request.metadata))})
        path.write_bytes(content.getbuffer())
        del content
        request.say("comparing with the network")
        again = torch.export.load(path).module()

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        found = again(*inputs)
        return (found,) if isinstance(found, torch.Tensor) else tuple(found)

    compared = check(plan.compared, plan.whole(run))
    inputs, outputs = axes_of(plan.traced)
    return Exported(path=path, inputs=inputs, outputs=outputs, checked=str(compared), gap=compared.gap)


def trace(interface: Interface, request: Request) -> ExportedProgram:
    """The graph of a network for any number of samples.

    Raises:
        ExportError: an operation depends on values, or on the number of samples.
    """
    example = interface.draw(2, torch.Generator().manual_seed(0))
    shapes = dynamic_shapes(interface, Dim("batch", min=1, max=MOST))
    request.say("tracing all operations")
    try:
        with quietly():
            program = torch.export.export(interface.program, example, dynamic_shapes=shapes, strict=False)
            if any(node.target in OWN for node in program.graph.nodes):
                program = program.run_decompositions(OWN)
    except Exception as error:  # of many kinds: whatever the network does that cannot be traced
        traced = getattr(interface.program, "model", interface.program)
        raise ExportError(
            f"torch.export cannot trace {type(traced).__name__}: {first_line(error)}"
        ) from error
    forget_places(program)
    return program


def dynamic_shapes(interface: Interface, batch: Any) -> tuple[Any, ...]:
    """Which axes of the inputs have no fixed size; those of ``*args`` in a tuple of their own."""
    axes: list[Any] = [
        {} if port.batch is None else {port.batch: batch if port.factor == 1 else port.factor * batch}
        for port in interface.inputs
    ]
    parameters = list(inspect.signature(interface.program.forward).parameters.values())
    if parameters[-1].kind is inspect.Parameter.VAR_POSITIONAL:
        named = len(parameters) - 1
        return (*axes[:named], tuple(axes[named:]))
    return tuple(axes)


def forget_places(program: ExportedProgram) -> None:
    """Leave out of the graph where on this machine the code lies."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def axes_of(interface: Interface) -> tuple[dict[str, str], dict[str, str]]:
    """Names and axes of inputs and of outputs."""
    inputs = interface.draw(2, torch.Generator().manual_seed(0))
    outputs = interface(inputs)
    return (
        {port.name: port.axes(x) for port, x in zip(interface.inputs, inputs, strict=True)},
        {port.name: port.axes(x) for port, x in zip(interface.outputs, outputs, strict=True)},
    )


@contextmanager
def quietly() -> Iterator[None]:
    """Without the exporters' remarks about themselves, and about where the code lies."""
    loud = [logging.getLogger(name) for name in ("torch.export", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loud]
    for logger in loud:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), without_places():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loud, levels, strict=True):
            logger.setLevel(level)


def first_line(error: BaseException) -> str:
    """What an exporter's page of words begins with."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"
