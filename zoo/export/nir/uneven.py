"""Average pooling by 2 that rounds up over an odd map, in nodes that NIR has.

The last window of a row or column then holds one value and takes it whole, where NIR pools windows of one
size. Along each axis that is the sum of two convolutions, which readers have without exception (grouped ones
they have not, so that these are over all channels, with zeros between them): one pools with a zero behind the
map, so that the last value is halved, and one, whose stride is the whole map, adds its other half and sees
nothing but zeros at every other place. The kernels are square, as `nir` 1.0.8 derives the width of a map from
their height.
"""

from __future__ import annotations

from typing import Any

import numpy as np

MOST_WEIGHTS = 1 << 24  # of one convolution; beyond that the network is better changed


def halves(channels: int, side: int, axis: int, other: int) -> tuple[Any, Any] | None:
    """The two convolutions along one axis, as ``nir.Conv2d``; None where they would be too large.

    Args:
        channels: C.
        side: of the axis that is pooled, odd and above 1.
        axis: 0 for rows, 1 for columns.
        other: side of the other axis, which stays.
    """
    import nir

    m = (side + 1) // 2
    stride = side  # a window that begins a map earlier sees nothing of it
    padding = (m - 2) * side + 1
    size = (m - 3) * side + 3  # the least that gives m windows, see the arithmetic of a convolution's output
    size = max(size + 1 - size % 2, 1)  # odd: the other axis keeps its middle
    if channels**2 * size**2 > MOST_WEIGHTS:
        return None

    def convolution(size: int, at: slice, stride: int, padding: int) -> Any:
        weight = np.zeros((channels, channels, size, size))
        line = np.zeros((size, size))
        line[at, size // 2] = 0.5
        weight[range(channels), range(channels)] = line if axis == 0 else line.T
        strides, paddings = [1, 1], [size // 2] * 2
        strides[axis], paddings[axis] = stride, padding
        shape = (side, other) if axis == 0 else (other, side)
        return nir.Conv2d(
            input_shape=shape, weight=weight, stride=tuple(strides), padding=tuple(paddings), dilation=(1, 1),
            groups=1, bias=np.zeros(channels),
        )  # fmt: skip

    return convolution(3, slice(1, 3), 2, 1), convolution(size, slice(0, 1), stride, padding)
