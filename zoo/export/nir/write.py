"""A network as a NIR file, checked against the network."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.base import ZooModel
from zoo.errors import ExportError
from zoo.export.interface import input_size
from zoo.export.nir.graph import Writer
from zoo.export.nir.one_step import neurons_of, one_step_of
from zoo.export.nir.rules import RULES, reason
from zoo.export.request import Exported
from zoo.files.formats.nir_file import read_nir, write_nir
from zoo.interchange.from_nir import DT, network_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from zoo.export.request import Request

STEPS = 4  # of the comparison: leak, reset and what comes behind it show within a few
EQUAL = 1e-9  # relative, in float64, where folded norms round at 1e-16


def graph_of(model: nn.Module, input_shape: Sequence[int], dt: float = DT) -> Any:
    """The ``nir.NIRGraph`` of one step of a network; its numbers are float64.

    Args:
        model: in evaluation mode; not changed.
        input_shape: of one sample, ``(C, H, W)`` of an image.
        dt: seconds a step.

    Raises:
        ExportError: NIR cannot say it; names node and reason.
    """
    neurons = neurons_of(model)
    program = one_step_of(model, neurons, input_shape)
    return Writer(program, neurons, dt, RULES.get, reason).graph()


def write(model: nn.Module, path: Path, request: Request) -> Exported:
    """Write ``model`` as a NIR file, and compare it with the network; see `zoo.export.formats.Format`.

    A NIR graph is one step of a network, so it takes still images and sequences alike, and T is up to whoever
    runs it. The comparison is in float64, before the weights are rounded to float32.

    Raises:
        ExportError: NIR cannot say the network, or the graph computes something else.
    """
    shape = input_size(model)
    request.say("taking one step of the network apart")
    graph = graph_of(model, shape)
    request.say("comparing with the network")
    x = torch.randn(STEPS, 2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = _answers(copy.deepcopy(model).double(), x)
    got = _answers(network_of(graph, dtype=torch.float64).eval(), x)
    if expected.shape != got.shape:
        raise ExportError(
            f"the graph answers {list(got.shape)} where {type(model).__name__} answers {list(expected.shape)}"
        )
    gap = _gap(got, expected)
    if not gap <= EQUAL:  # no number is not equal either
        raise ExportError(
            f"the graph answers something else than {type(model).__name__} over {STEPS} steps of random"
            f" input, by {gap:.2g} of the largest output: something in it acts across steps"
        )
    _round(graph)
    graph.metadata = {**request.metadata, "dt": DT}
    request.say("writing")
    write_nir(path, graph)
    expected = _answers(model, x.float())
    got = _answers(network_of(read_nir(path)).eval(), x.float())
    same = torch.isclose(got, expected, rtol=1e-5, atol=1e-6).double().mean().item()
    return Exported(
        path=path,
        inputs={"input": _axes(shape)},
        outputs={"output": _axes(tuple(expected.shape[2:]))},
        checked=f"the graph equals the network over {STEPS} steps of random input in float64; the file, whose"
        f" folded weights are float32, gives {same:.2%} of its outputs",
        gap=_gap(got, expected),
    )


def _answers(network: nn.Module, x: Tensor) -> Tensor:
    """Of every step, ``[T, B, K]``."""
    y: Tensor
    with torch.no_grad():
        if getattr(network, "mean_frame", False):  # a sequence would be averaged into one image
            network.time_steps = len(x)  # type: ignore[assignment]
            y = network(x[0], steps=True)
        elif isinstance(network, ZooModel):
            y = network(x, steps=True)
        else:
            y = network(x)
    return y


def _gap(got: Tensor, expected: Tensor) -> float:
    return ((got - expected).abs().max() / expected.abs().max().clamp(min=1e-30)).item()


def _round(graph: Any) -> None:
    """Weights to float32; what is left in float64 are the numbers of neurons."""
    for node in graph.nodes.values():
        for name in ("weight", "bias", "scale"):
            value = getattr(node, name, None)
            if value is not None:
                setattr(node, name, np.asarray(value, dtype=np.float32))


def _axes(shape: tuple[int, ...]) -> str:
    return f"[batch, {', '.join(map(str, shape))}] of one step"
