"""Operations that move values, or pool them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx

from conversion.graph.ops import module_path, op_name
from zoo.export.nir.graph import Signal
from zoo.export.nir.uneven import halves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.export.nir.graph import Writer


def alias(writer: Writer, node: fx.Node, signal: Signal) -> Signal:
    """Operations that move values at most between axes: the same samples, or flattened ones."""
    name, shape = op_name(node.target), writer.shape(node)
    source = node.args[0]
    assert isinstance(source, fx.Node)
    if name in ("permute", "transpose", "movedim"):
        _check_order(writer, node, source)
    if name == "mean" and (pooled := _pooled_axes(node, source)):
        return _mean(writer, node, signal, pooled, shape)
    if name in ("slice", "select") and math.prod(shape) != math.prod(signal.shape):
        raise writer.refuse(node, "NIR takes no part of a signal")
    if name == "expand" and shape != signal.shape:
        raise writer.refuse(node, "NIR has no repetition")
    if shape == signal.shape:
        return signal
    if shape == (math.prod(signal.shape),):
        return _flattened(writer, node, signal)
    raise writer.refuse(node, f"it makes {shape} of {signal.shape}; NIR can only flatten")


def _path(node: fx.Node) -> str:
    return module_path(node) or "network"


def _check_order(writer: Writer, node: fx.Node, source: fx.Node) -> None:
    """Axes with more than one value stay in their order."""
    sizes = source.meta["val"].shape
    axes = torch.empty([1 + i for i in range(len(sizes))], device="meta")  # their sizes tell them apart
    moved = getattr(axes, op_name(node.target))(*node.args[1:])
    kept = [int(size) - 1 for size in moved.shape]
    long = [axis for axis in kept if not isinstance(sizes[axis], int) or sizes[axis] != 1]
    if long != sorted(long):
        raise writer.refuse(node, "it swaps axes; NIR has no transposition")


def _pooled_axes(node: fx.Node, source: fx.Node) -> list[int]:
    """Axes that a mean takes, without those of size 1: one step has one."""
    val = source.meta["val"]
    given: Any = node.args[1] if len(node.args) > 1 else list(range(val.dim()))
    axes = sorted(int(a) % val.dim() for a in given)
    return [a for a in axes if not isinstance(val.shape[a], int) or val.shape[a] != 1]


def _mean(writer: Writer, node: fx.Node, signal: Signal, axes: list[int], shape: tuple[int, ...]) -> Signal:
    """The mean over the whole map."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    dims = source.meta["val"].dim()
    if len(signal.shape) != 3 or {a - dims for a in axes} != {k for k in (-2, -1) if signal.shape[k] != 1}:
        raise writer.refuse(node, "NIR has means over maps only")
    pooled = _pool(writer, _path(node), signal, signal.shape[1:], signal.shape[1:], (0, 0))
    return pooled if pooled.shape == shape else _flattened(writer, node, pooled)


def _flattened(writer: Writer, node: fx.Node, signal: Signal) -> Signal:
    import nir

    flat = nir.Flatten(input_type={"input": np.array(signal.shape)}, start_dim=0, end_dim=-1)
    return Signal.of(writer.put(f"{_path(node)}_flatten", flat, signal), (math.prod(signal.shape),))


def _pool(
    writer: Writer,
    name: str,
    signal: Signal,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
) -> Signal:
    import nir

    sizes = [np.array([int(n) for n in values]) for values in (kernel, stride, padding)]
    made = writer.put(f"{name}_pool", nir.AvgPool2d(*sizes), signal)
    behind = [
        (size + 2 * int(p) - int(k)) // int(s) + 1
        for size, k, s, p in zip(signal.shape[1:], kernel, stride, padding, strict=True)
    ]
    return Signal.of(made, (signal.shape[0], *behind))


def avg_pool2d(writer: Writer, node: fx.Node, signal: Signal) -> Signal:
    """Average pooling by windows of one size, or by 2 over odd maps."""
    given = [*node.args[1:], *[None] * 6]
    kernel = _pair(node.kwargs.get("kernel_size", given[0]))
    stride = _pair(given[1] or kernel)
    padding = _pair(given[2] or 0)
    ceil, whole = bool(given[3]), given[4] is None or bool(given[4])
    if given[5] is not None or (any(padding) and not whole):
        raise writer.refuse(node, "NIR's average pooling counts the padding and divides by the window")
    left = [
        (size + 2 * p - k) % s
        for size, k, s, p in zip(signal.shape[1:], kernel, stride, padding, strict=True)
    ]
    if ceil and any(left):
        if signal.shape[1:] == (1, 1) and not any(padding):
            return signal
        if (
            kernel == stride == (2, 2)
            and not any(padding)
            and all(size % 2 and size > 1 for size in signal.shape[1:])
        ):
            return _uneven(writer, node, signal)
        raise writer.refuse(node, _rounds_up(signal))
    return _pool(writer, _path(node), signal, kernel, stride, padding)


def _rounds_up(signal: Signal) -> str:
    return (
        f"it rounds up over a map of {signal.shape[1]} x {signal.shape[2]}, NIR pools windows of one size:"
        " give an input size that divides evenly"
    )


def _uneven(writer: Writer, node: fx.Node, signal: Signal) -> Signal:
    """Rows, then columns; see `zoo.export.nir.uneven`."""
    shape = list(signal.shape)
    for axis in (0, 1):
        made = halves(shape[0], shape[1 + axis], axis, shape[2 - axis])
        if made is None:
            raise writer.refuse(node, _rounds_up(signal))
        shape[1 + axis] = (shape[1 + axis] + 1) // 2
        names = [
            writer.put(f"{_path(node)}_{'rows' if axis == 0 else 'columns'}", part, signal) for part in made
        ]
        signal = Signal(tuple((name, 1.0) for name in names), tuple(shape))
    return signal


def adaptive_avg_pool2d(writer: Writer, node: fx.Node, signal: Signal) -> Signal:
    """Average pooling to a size, where that divides the map."""
    sizes, wanted = signal.shape[1:], writer.shape(node)[1:]
    if sizes == wanted:
        return signal
    if any(size % out for size, out in zip(sizes, wanted, strict=True)):
        raise writer.refuse(
            node,
            f"it pools {sizes[0]} x {sizes[1]} to {wanted[0]} x {wanted[1]} by windows of several sizes;"
            " NIR's have one: give an input size that divides evenly",
        )
    kernel = [size // out for size, out in zip(sizes, wanted, strict=True)]
    return _pool(writer, _path(node), signal, kernel, kernel, (0, 0))


def _pair(value: Any) -> tuple[int, int]:
    values = [value] if isinstance(value, int) else list(value)
    return (int(values[0]), int(values[-1]))
