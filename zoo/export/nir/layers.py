"""Neurons, and layers with weights.

How neurons carry over (Euler steps of ``dt`` seconds): a LIF that divides its input by ``tau`` is ``tau dt``
with ``r = 1``, one that does not has ``r = tau``, an IF has ``r = 1 / dt``; all leak and reset to
``v_reset``. Numbers are float64: from a float32 ``tau`` a reader that divides by ``dt`` gets 1.9999999 for 2,
and spikes flip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

import spiking
from zoo.export.nir.graph import Signal

if TYPE_CHECKING:
    from torch import fx

    from zoo.export.nir.graph import Writer

STATISTICS = "it normalises by statistics of its input; NIR has fixed weights only"


def neuron(writer: Writer, node: fx.Node, signal: Signal) -> Signal:
    """An IF, LIF or PLIF; its numbers stand there for every one of its neurons."""
    import nir

    path = str(node.args[1])
    neuron: Any = writer.neurons[path]

    def full(value: float) -> Any:
        return np.full(signal.shape, float(value), dtype=np.float64)

    shared = {"v_threshold": full(neuron.v_threshold), "v_reset": full(neuron.v_reset)}
    if type(neuron) is spiking.IF:
        return Signal.of(writer.put(path, nir.IF(r=full(1.0 / writer.dt), **shared), signal), signal.shape)
    tau = (
        neuron.tau
        if isinstance(neuron, spiking.LIF)
        else 1.0 / torch.sigmoid(neuron.w.detach().double()).item()
    )
    made = nir.LIF(
        tau=full(tau * writer.dt),
        r=full(1.0 if neuron.decay_input else tau),
        v_leak=full(neuron.v_reset),
        **shared,
    )
    return Signal.of(writer.put(path, made, signal), signal.shape)


def conv(writer: Writer, node: fx.Node, signal: Signal) -> Signal:
    """A convolution, with a bias, since NIR's have one."""
    import nir

    conv: Any = writer.module(node)
    space = len(conv.kernel_size)
    if conv.padding_mode != "zeros":
        raise writer.refuse(node, f"it pads with {conv.padding_mode}; NIR pads with zeros")
    padding = conv.padding
    if isinstance(padding, str):
        extra = [
            d * (k - 1) if padding == "same" else 0
            for d, k in zip(conv.dilation, conv.kernel_size, strict=True)
        ]
        if any(n % 2 for n in extra):
            raise writer.refuse(node, "it pads one side more than the other")
        padding = tuple(n // 2 for n in extra)
    bias = _array(conv.bias) if conv.bias is not None else np.zeros(conv.out_channels)
    sizes = {"stride": conv.stride, "padding": padding, "dilation": conv.dilation}
    sizes = {k: tuple(v) if space > 1 else int(v[0]) for k, v in sizes.items()}
    kind, where = (nir.Conv2d, signal.shape[1:]) if space == 2 else (nir.Conv1d, signal.shape[-1])
    made = kind(input_shape=where, weight=_array(conv.weight), groups=int(conv.groups), bias=bias, **sizes)
    return Signal.of(writer.put(str(node.target), made, signal), writer.shape(node))


def linear(writer: Writer, node: fx.Node, signal: Signal) -> Signal:
    """A linear layer on vectors."""
    import nir

    linear: Any = writer.module(node)
    if len(signal.shape) != 1:
        raise writer.refuse(
            node, f"it acts on the last axis of {signal.shape}; NIR's linear layers take vectors"
        )
    weight = _array(linear.weight)
    made = nir.Linear(weight) if linear.bias is None else nir.Affine(weight, _array(linear.bias))
    return Signal.of(writer.put(str(node.target), made, signal), writer.shape(node))


def norm(writer: Writer, node: fx.Node, signal: Signal) -> Signal:
    """A batch norm with nothing before it to be folded into: a factor and a shift for each channel."""
    import nir

    norm: Any = writer.module(node)
    if norm.running_mean is None:
        raise writer.refuse(node, STATISTICS)
    gain = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight
    shift = torch.zeros_like(norm.running_mean) if norm.bias is None else norm.bias
    factor = gain / torch.sqrt(norm.running_var + norm.eps)
    weight, bias = _array(torch.diag(factor)), _array(shift - norm.running_mean * factor)
    made: Any
    if len(signal.shape) == 1:
        made = nir.Affine(weight, bias)
    elif len(signal.shape) == 3:
        made = nir.Conv2d(
            input_shape=signal.shape[1:], weight=weight[:, :, None, None], stride=(1, 1), padding=(0, 0),
            dilation=(1, 1), groups=1, bias=bias,
        )  # fmt: skip
    else:
        raise writer.refuse(node, f"it norms samples of shape {signal.shape}")
    return Signal.of(writer.put(str(node.target), made, signal), signal.shape)


def _array(tensor: Tensor) -> Any:
    return tensor.detach().double().cpu().numpy()
