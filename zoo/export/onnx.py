"""ONNX, through PyTorch's exporter of graphs, compared in onnxruntime."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from zoo.errors import ExportError
from zoo.export.compare import check
from zoo.export.plan import plan_of
from zoo.export.program import axes_of, first_line, quietly, trace
from zoo.export.request import Exported

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from zoo.export.ports import Interface
    from zoo.export.request import Request

LARGEST_FILE = 2 << 30  # bytes of one message of protobuf


def write(model: nn.Module, path: Path, request: Request) -> Exported:
    """Write ``model`` as one ONNX file; see `zoo.export.formats.Format`.

    Its ``metadata_props`` say what `zoo.export.metadata` knows of the network.
    """
    weights = sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers()))
    if weights > 0.95 * LARGEST_FILE:
        raise ExportError(
            f"the weights are {weights / 2**30:.1f} GiB and an ONNX file holds 2 at most; use the format pt2"
        )
    plan = plan_of(model, request)
    interface = plan.traced
    program = trace(interface, request)
    request.say("translating into ONNX")
    try:
        with quietly():
            translated = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[port.name for port in interface.inputs],
                output_names=[port.name for port in interface.outputs],
                verbose=False,
            )
    except Exception as error:  # of many kinds: whatever operator has no translation
        raise ExportError(f"{type(model).__name__} has no form in ONNX: {reason(error)}") from error
    assert translated is not None
    tidy(translated.model, interface, request)
    request.say("writing")
    translated.save(str(path), external_data=False)
    del translated, program
    request.say("comparing with the network in onnxruntime")
    exact = plan.whole(Runner(path, optimised=False))
    compared = check(plan.compared, plan.whole(Runner(path)), exact)
    inputs, outputs = axes_of(interface)
    return Exported(path=path, inputs=inputs, outputs=outputs, checked=str(compared), gap=compared.gap)


def tidy(model: Any, interface: Interface, request: Request) -> None:
    """Name the axis of the batch, say what the network is, and forget how and where it was traced."""
    first = next(i for i, port in enumerate(interface.inputs) if port.batch is not None)
    symbol = str(model.graph.inputs[first].shape[interface.inputs[first].batch])
    for function_or_graph in (model.graph, *model.functions.values()):
        for node in function_or_graph.all_nodes():
            node.metadata_props.clear()
            for value in node.outputs:
                rename(value, symbol)
                value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        rename(value, symbol)
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.producer_name = "fulgurite"
    model.producer_version = request.metadata.get("version", "").removeprefix("fulgurite ")
    model.metadata_props.clear()
    model.metadata_props.update(request.metadata)


def rename(value: Any, symbol: str) -> None:
    """Call the size ``symbol`` in the axes of a value ``batch``."""
    if value.shape is None or value.shape.frozen:
        return
    for axis, size in enumerate(value.shape):
        if not isinstance(size, int):
            value.shape[axis] = re.sub(rf"\b{re.escape(symbol)}\b", "batch", str(size))


class Runner:
    """A file in onnxruntime, on the CPU.

    Args:
        path: of the file.
        optimised: whether operators are fused, as is usual.
        threads: None: as many as PyTorch uses.
    """

    def __init__(self, path: Path, optimised: bool = True, threads: int | None = None) -> None:
        import onnxruntime

        self.path, self.optimised = path, optimised
        self.threads = threads or torch.get_num_threads()
        self._library: Any = onnxruntime
        self._session: Any = None

    @property
    def session(self) -> Any:
        """Opened when it is wanted.

        Raises:
            ExportError: onnxruntime cannot run the file.
        """
        if self._session is None:
            library = self._library
            options = library.SessionOptions()
            options.intra_op_num_threads = self.threads
            options.log_severity_level = 3
            levels = library.GraphOptimizationLevel
            options.graph_optimization_level = (
                levels.ORT_ENABLE_ALL if self.optimised else levels.ORT_DISABLE_ALL
            )
            try:
                self._session = library.InferenceSession(
                    str(self.path), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # onnxruntime's own kinds have no common base
                raise ExportError(f"onnxruntime cannot open the file: {first_line(error)}") from error
        return self._session

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Outputs in order."""
        named = {port.name: x.numpy() for port, x in zip(self.session.get_inputs(), inputs, strict=True)}
        try:
            found = self.session.run(None, named)
        except Exception as error:
            raise ExportError(f"onnxruntime cannot run the file: {first_line(error)}") from error
        return tuple(torch.as_tensor(array) for array in found)


def reason(error: BaseException) -> str:
    """The operator without a translation, or where all began; the exporter itself says a page."""
    if found := re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", str(error)):
        return f"the operator {found[1]} has no translation; the format pt2 holds it"
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
