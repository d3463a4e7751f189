"""Nodes of NIR as those that `zoo.models.nir_network` builds; the conventions are in `from_nir`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zoo.errors import CheckpointError
from zoo.models.nir_network import INPUT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

CLOSE = 1e-5  # relative: files of snnTorch and Norse hold float32 time constants
NONE_HERE = {
    "CubaLI": "there is no neuron with a synaptic current here",
    "CubaLIF": "there is no neuron with a synaptic current here",
    "LI": "there is no leaky integrator without spikes here",
    "I": "there is no integrator without spikes here",
    "Delay": "there are no delays here",
    "Threshold": "there are no neurons without a membrane here",
}


class Builder:
    """Collects nodes and weights under names that modules can have."""

    def __init__(self, dt: float) -> None:
        self.dt = dt
        self.nodes: list[dict[str, Any]] = []
        self.state: dict[str, Tensor] = {}
        self._taken = {INPUT}

    def add(self, name: str, node: Any, inputs: list[str]) -> str:
        """Put a node behind those that it takes; the name of what answers for it.

        Raises:
            CheckpointError: there is nothing like it here; names node and reason.
        """
        kind = type(node).__name__
        rule = RULES.get(kind)
        if rule is None:
            why = NONE_HERE.get(kind, "it has no counterpart here")
            raise CheckpointError(f"node {name!r} ({kind}) cannot be read: {why}")
        try:
            return rule(self, name, node, inputs)
        except CheckpointError as error:
            raise CheckpointError(f"node {name!r} ({kind}) cannot be read: {error}") from None
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise CheckpointError(f"node {name!r} ({kind}) is damaged: {error}") from error

    def put(
        self, name: str, kind: str, inputs: list[str], weights: Mapping[str, Any], **settings: Any
    ) -> str:
        """A node of ours."""
        key = base = re.sub(r"\W", "_", name)[:80] or "node"
        number = 2
        while key in self._taken or hasattr(torch.nn.ModuleDict, key):
            key, number = f"{base}_{number}", number + 1
        self._taken.add(key)
        self.nodes.append({"name": key, "kind": kind, "inputs": inputs, **settings})
        for label, value in weights.items():
            array = np.array(value, order="C")
            if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
                raise CheckpointError(f"its {label} holds values that are no finite numbers")
            self.state[f"layers.{key}.{label}"] = torch.from_numpy(
                array.astype(array.dtype.newbyteorder("="))
            )
        return key


def _linear(builder: Builder, name: str, node: Any, inputs: list[str]) -> str:
    weight, bias = np.asarray(node.weight), getattr(node, "bias", None)
    if weight.ndim != 2:
        raise CheckpointError(f"its weight has {weight.ndim} axes, expected 2")
    weights = {"weight": weight} | ({} if bias is None else {"bias": bias})
    settings = {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": bias is not None}
    return builder.put(name, "linear", inputs, weights, **settings)


def _convolution(builder: Builder, name: str, node: Any, inputs: list[str]) -> str:
    weight = np.asarray(node.weight)
    space, groups = weight.ndim - 2, int(node.groups)
    if space not in (1, 2) or f"Conv{space}d" != type(node).__name__:
        raise CheckpointError(f"its weight has {weight.ndim} axes")
    settings = {
        "in_channels": int(weight.shape[1]) * groups,
        "out_channels": int(weight.shape[0]),
        "kernel_size": [int(n) for n in weight.shape[2:]],
        "stride": _sizes(node.stride, space),
        "padding": _padding(node.padding, space),
        "dilation": _sizes(node.dilation, space),
        "groups": groups,
    }
    weights = {"weight": weight, "bias": _all(node.bias, (weight.shape[0],), "bias")}
    return builder.put(name, f"conv{space}d", inputs, weights, **settings)


def _pool(builder: Builder, name: str, node: Any, inputs: list[str]) -> str:
    kind = "avg_pool2d" if type(node).__name__ == "AvgPool2d" else "sum_pool2d"
    settings = {
        "kernel": _sizes(node.kernel_size, 2),
        "stride": _sizes(node.stride, 2),
        "padding": _sizes(node.padding, 2),
    }
    return builder.put(name, kind, inputs, {}, **settings)


def _flatten(builder: Builder, name: str, node: Any, inputs: list[str]) -> str:
    return builder.put(name, "flatten", inputs, {}, start=int(node.start_dim), end=int(node.end_dim))


def _scale(builder: Builder, name: str, node: Any, inputs: list[str]) -> str:
    scale = np.asarray(node.scale)
    return builder.put(name, "scale", inputs, {"scale": scale}, shape=list(scale.shape))


def _gate(builder: Builder, name: str, node: Any, inputs: list[str]) -> str:
    return builder.put(name, "identity", inputs, {})


def _lif(builder: Builder, name: str, node: Any, inputs: list[str]) -> str:
    tau = _uniform(node.tau, "tau") / builder.dt
    tau = float(f"{tau:.12g}")  # dividing by dt leaves 2.3 as 2.3000000000000003
    v_reset, v_leak = _uniform(node.v_reset, "v_reset"), _uniform(node.v_leak, "v_leak")
    if not tau >= 1.0 - CLOSE:
        raise CheckpointError(
            f"its time constant is {tau:.6g} steps of dt = {builder.dt:g} s, expected at least 1; if the file"
            " was written for another step, give dt=..."
        )
    if abs(v_leak - v_reset) > CLOSE * max(1.0, abs(v_reset)):
        raise CheckpointError(
            f"it leaks to {v_leak:g} and resets to {v_reset:g}; here both are one potential"
        )
    r = np.asarray(node.r, dtype=np.float64)
    decay_input = not _close(r, tau)  # r = 1 where tau is 1, too
    gain = r if decay_input else r / tau
    return _neuron(
        builder, name, node, inputs, "lif", gain, v_reset, tau=max(tau, 1.0), decay_input=decay_input
    )


def _if(builder: Builder, name: str, node: Any, inputs: list[str]) -> str:
    gain = np.asarray(node.r, dtype=np.float64) * builder.dt
    if _close(np.asarray(node.r), 1.0) and builder.dt != 1.0:
        raise CheckpointError(
            f"r is 1, so that one step of dt = {builder.dt:g} s would add {builder.dt:g} of the input; if the"
            " file counts time in steps, give dt=1.0"
        )
    return _neuron(builder, name, node, inputs, "if", gain, _uniform(node.v_reset, "v_reset"))


def _neuron(
    builder: Builder,
    name: str,
    node: Any,
    inputs: list[str],
    kind: str,
    gain: Any,
    v_reset: float,
    **settings: Any,
) -> str:
    """A neuron, behind factors on its input where r asks for them, or thresholds that differ."""
    threshold = np.asarray(node.v_threshold, dtype=np.float64)
    if not (np.isfinite(threshold).all() and (threshold > 0).all()):
        raise CheckpointError("its threshold is not above 0")
    if _same(threshold):
        v_threshold = float(threshold.flat[0])
    elif v_reset == 0.0:
        gain, v_threshold = gain / threshold, 1.0  # a membrane that is linear in its input
    else:
        raise CheckpointError(f"thresholds differ between its neurons, which reset to {v_reset:g}, not to 0")
    if not _close(gain, 1.0):
        scale = np.asarray(gain.flat[0]) if _same(gain) else gain
        inputs = [builder.put(f"{name}_gain", "scale", inputs, {"scale": scale}, shape=list(scale.shape))]
    numbers: dict[str, Any] = {"v_threshold": v_threshold, "v_reset": v_reset, **settings}
    shapes = {tuple(np.shape(v)) for v in (node.r, node.v_threshold, node.v_reset) if np.size(v) > 1}
    if len(shapes) > 1:
        raise CheckpointError(f"its parameters have the shapes {sorted(shapes)}")
    if shapes:
        numbers["shape"] = list(shapes.pop())
    return builder.put(name, kind, inputs, {}, **numbers)


def _uniform(value: Any, label: str) -> float:
    array = np.asarray(value, dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        raise CheckpointError(f"its {label} is no finite number")
    if not _same(array):
        raise CheckpointError(f"its {label} differs between neurons ({array.min():g} to {array.max():g})")
    return float(array.flat[0])


def _same(value: Any) -> bool:
    array = np.asarray(value)
    return bool(np.ptp(array) <= CLOSE * np.abs(array).max()) if array.size else False


def _close(value: Any, number: float) -> bool:
    return bool(np.allclose(np.asarray(value, dtype=np.float64), number, rtol=CLOSE, atol=0.0))


def _sizes(value: Any, count: int) -> list[int]:
    sizes = [int(n) for n in np.atleast_1d(value)]
    sizes = sizes * count if len(sizes) == 1 else sizes
    if len(sizes) != count:
        raise CheckpointError(f"{sizes} are not {count} sizes")
    return sizes


def _padding(value: Any, count: int) -> list[int] | str:
    value = value.decode("utf8", "replace") if isinstance(value, bytes) else value
    return value if isinstance(value, str) else _sizes(value, count)


def _all(value: Any, shape: tuple[int, ...], label: str) -> Any:
    """An array of this shape; some writers keep one number for all, or none where it is 0."""
    array = np.zeros(shape, dtype=np.float32) if value is None else np.asarray(value)
    if array.shape != shape and array.size != 1:
        raise CheckpointError(f"its {label} has shape {array.shape}, expected {shape}")
    return np.broadcast_to(array.reshape(() if array.size == 1 else shape), shape)


RULES: dict[str, Callable[[Builder, str, Any, list[str]], str]] = {
    "Affine": _linear,
    "Linear": _linear,
    "Conv1d": _convolution,
    "Conv2d": _convolution,
    "AvgPool2d": _pool,
    "SumPool2d": _pool,
    "Flatten": _flatten,
    "Scale": _scale,
    "IF": _if,
    "LIF": _lif,
    "Output": _gate,
    "_Gate": _gate,
}
