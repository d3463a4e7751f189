"""NIR graphs, whoever wrote them, as networks of ours.

NIR says differential equations; how a library steps through them is its own affair. One step of ``dt``
seconds here is Euler's, as in SpikingJelly, snnTorch and Norse: with ``tau dv/dt = (v_leak - v) + r x`` our
``h = v + (r x - (v - v_leak)) / (tau / dt)``, and with ``dv/dt = r x`` our ``h = v + r dt x``; then spike at
the threshold and hard reset. Writers differ in three things:

* ``r``: 1 (the input is divided by the time constant, `spiking.LIF`'s ``decay_input``) or ``tau / dt`` (it is
  not); every other value becomes a factor on the input.
* shapes: a number for all neurons, or an array over them. Thresholds and ``r`` may differ between the neurons
  of a node; time constants may not.
* at exactly the threshold ours and SpikingJelly's neurons fire; NIR's text, snnTorch and Norse ask for more.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo.errors import CheckpointError
from zoo.files.formats.nir_file import read_nir
from zoo.files.strict import load_strict
from zoo.interchange.nir_nodes import Builder
from zoo.models.nir_network import INPUT, NIRNetwork, nir_network

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

DT = 1e-4  # seconds a step: of snnTorch's reader and writer, SpikingJelly's default, and ours


def load_nir(path: Path, *, time_steps: int | None = None, dt: float | None = None) -> NIRNetwork:
    """The network of a NIR file, in evaluation mode.

    Args:
        path: the file.
        time_steps: T for samples without a time axis; missing: what a file of ours says.
        dt: seconds a step; missing: what a file of ours says, else 1e-4.

    Raises:
        CheckpointError: no NIR file, or one with nodes that there are none of here; names node and reason.
        ModuleNotFoundError: the extra ``nir`` is missing.
    """
    graph = read_nir(path)
    try:
        network = network_of(graph, time_steps=time_steps, dt=dt)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    network.origin = {"name": path.name, "licence": None, "url": None}
    return network.eval()


def network_of(
    graph: Any,
    *,
    time_steps: int | None = None,
    dt: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> NIRNetwork:
    """A ``nir.NIRGraph`` as a network; see `load_nir`.

    Args:
        graph: of ``nir.read``, or made in memory.
        time_steps: see `load_nir`.
        dt: see `load_nir`.
        dtype: of the weights.
    """
    told = graph.metadata if isinstance(graph.metadata, dict) else {}
    if dt is None:
        dt = _number(told.get("dt"), DT)
    if not isinstance(dt, int | float) or isinstance(dt, bool) or not 0 < dt < float("inf"):
        raise ValueError(f"dt must be a positive number of seconds, got {dt!r}")
    if time_steps is None and "time_steps" in told:
        time_steps = int(_number(told["time_steps"], 0)) or None
    description, state = described(graph, float(dt))
    try:
        network = nir_network(graph=description, time_steps=time_steps)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    network = network.to(dtype)
    load_strict(network, {k: v.to(dtype) for k, v in state.items()}, source="the graph")
    return network


def described(graph: Any, dt: float) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description that `NIRNetwork` takes, and its weights by name."""
    nodes, edges = _flat(graph)
    inputs = [name for name, node in nodes.items() if type(node).__name__ == "Input"]
    outputs = [name for name, node in nodes.items() if type(node).__name__ == "Output"]
    for label, found in (("input", inputs), ("output", outputs)):
        if len(found) != 1:
            raise CheckpointError(
                f"the graph has {len(found)} {label}s ({_some(found)}); networks here have one"
            )
    sources: dict[str, list[str]] = {name: [] for name in nodes}
    for before, after in edges:
        for end in (before, after):
            if end not in nodes:
                raise CheckpointError(f"an edge names {end!r}, and there is no such node")
        if before in sources[after]:
            raise CheckpointError(f"the edge from {before!r} to {after!r} stands in the graph twice")
        sources[after].append(before)
    order = _order(sources)
    if unfed := [name for name in order if not sources[name] and name not in inputs]:
        raise CheckpointError(f"nothing leads to node {unfed[0]!r}")

    builder = Builder(dt)
    names = {inputs[0]: INPUT}
    for name in order:
        if name in names:
            continue
        taken = [names[source] for source in sources[name]]
        passes = name in outputs and len(taken) == 1
        names[name] = taken[0] if passes else builder.add(name, nodes[name], taken)
    shape = nodes[inputs[0]].input_type.get("input")
    if shape is None:
        raise CheckpointError(f"input node {inputs[0]!r} does not say the shape of a sample")
    size = [int(n) for n in np.atleast_1d(shape)]
    return (
        {"input_shape": size, "nodes": builder.nodes, "output": names[outputs[0]]},
        builder.state,
    )


def _flat(graph: Any, prefix: str = "") -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Nodes and edges, also those of graphs in the graph, whose inputs and outputs become identities."""
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    ends: dict[str, tuple[str, str]] = {}  # of a graph in the graph: where edges enter and leave it
    for name, node in graph.nodes.items():
        path = f"{prefix}{name}"
        if type(node).__name__ != "NIRGraph":
            nodes[path] = node
            continue
        inner_nodes, inner_edges = _flat(node, f"{path}.")
        gates: list[str] = []
        for kind in ("Input", "Output"):
            own = [n for n in node.nodes if type(node.nodes[n]).__name__ == kind]
            if len(own) != 1:
                raise CheckpointError(f"node {path!r} is a graph with {len(own)} nodes of kind {kind}")
            gates.append(f"{path}.{own[0]}")
            inner_nodes[gates[-1]] = _Gate()
        ends[name] = (gates[0], gates[1])
        nodes |= inner_nodes
        edges += inner_edges
    for before, after in graph.edges:
        source = ends[before][1] if before in ends else f"{prefix}{before}"
        target = ends[after][0] if after in ends else f"{prefix}{after}"
        edges.append((source, target))
    return nodes, edges


class _Gate:
    """Where edges enter or leave a graph in the graph."""


def _order(sources: Mapping[str, list[str]]) -> list[str]:
    try:
        return list(TopologicalSorter(sources).static_order())
    except CycleError as error:
        circle = " -> ".join(map(str, error.args[1]))
        raise CheckpointError(
            f"the graph is recurrent ({circle}); networks here are feed-forward, so that all steps of a layer"
            " run at once"
        ) from None


def _number(value: Any, otherwise: float) -> float:
    """A number of the metadata, which others may have written as a word; ``otherwise`` if it is none."""
    value = value.decode("utf8", "replace") if isinstance(value, bytes) else value
    try:
        return otherwise if value is None else float(np.asarray(value, dtype=np.float64).item())
    except ValueError:
        return otherwise


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:4])) or "none"
