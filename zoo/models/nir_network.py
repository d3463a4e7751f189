"""Networks that a NIR graph describes: layers and neurons joined by edges, built from plain values.

"Neuromorphic Intermediate Representation", Nature Communications 2024, arXiv 2311.14641.
``zoo.load("file.nir")`` builds this entry (see `zoo.interchange.from_nir`); the description holds no weights
and needs no package of NIR, so that `zoo.save` and `zoo.load` take such a network as any other.

Axes: T time, B batch, C channels, H W map.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

import spiking
from spiking.layers import fold_time
from zoo.base import ZooModel
from zoo.build import build_model
from zoo.files.formats.torch_file import first_line
from zoo.registry import register_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

INPUT = "input"
MOST_AXES = 4


class Scale(nn.Module):
    """``y = scale * x``, one factor for each value of a sample, or one for all.

    Args:
        shape: of the factors.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(tuple(shape)))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, ...]`` -> ``[N, ...]``."""
        return x * self.scale


def _linear(in_features: int, out_features: int, bias: bool) -> nn.Module:
    return nn.Linear(in_features, out_features, bias=bias)


def _conv1d(**settings: Any) -> nn.Module:
    return nn.Conv1d(**_convolution(**settings))


def _conv2d(**settings: Any) -> nn.Module:
    return nn.Conv2d(**_convolution(**settings))


def _convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int,
) -> dict[str, Any]:
    return {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "kernel_size": tuple(kernel_size),
        "stride": tuple(stride),
        "padding": padding if isinstance(padding, str) else tuple(padding),
        "dilation": tuple(dilation),
        "groups": groups,
    }


def _avg_pool2d(kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> nn.Module:
    return nn.AvgPool2d(_pair(kernel), _pair(stride), _pair(padding))  # zeros outside count, as in NIR


def _sum_pool2d(kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> nn.Module:
    return nn.AvgPool2d(_pair(kernel), _pair(stride), _pair(padding), divisor_override=1)


def _pair(sizes: Sequence[int]) -> tuple[int, int]:
    height, width = sizes
    return height, width


def _flatten(start: int, end: int) -> nn.Module:
    return nn.Flatten(start + 1 if start >= 0 else start, end + 1 if end >= 0 else end)


def _identity() -> nn.Module:
    return nn.Identity()


def _if(v_threshold: float, v_reset: float) -> nn.Module:
    return spiking.IF(v_threshold, v_reset, surrogate="atan", detach_reset=True)


def _lif(tau: float, decay_input: bool, v_threshold: float, v_reset: float) -> nn.Module:
    return spiking.LIF(tau, decay_input, v_threshold, v_reset, surrogate="atan", detach_reset=True)


KINDS: dict[str, Callable[..., nn.Module]] = {
    "linear": _linear,
    "conv1d": _conv1d,
    "conv2d": _conv2d,
    "avg_pool2d": _avg_pool2d,
    "sum_pool2d": _sum_pool2d,
    "flatten": _flatten,
    "scale": Scale,
    "identity": _identity,
    "if": _if,
    "lif": _lif,
}
NEURONS = ("if", "lif")


class NIRNetwork(ZooModel):
    """A feed-forward graph of layers and neurons; what several edges bring to a node is added.

    Args:
        graph: ``{"input_shape": [...], "nodes": [...], "output": NAME}``. A node is ``{"name": NAME, "kind":
            KIND, "inputs": [NAME, ...]}`` and the settings of its kind, one of `KINDS`; it stands behind all
            nodes that it takes. ``"input"`` is the name of the input. A neuron may say the ``shape`` of its
            inputs.
        time_steps: T for samples without a time axis; None where the file did not say, so that only
            sequences are taken.

    Raises:
        ValueError: the description is none of a network; names the node.

    Attributes:
        input_shape: of one sample, ``(C, H, W)`` of an image.
        output_shape: likewise, ``(K,)`` of logits.
    """

    recorded: ClassVar[tuple[str, ...]] = ("time_steps",)
    takes_time_steps: ClassVar[bool] = True
    kinds: ClassVar[Mapping[str, Callable[..., nn.Module]]] = KINDS  # of nodes

    def __init__(self, graph: Mapping[str, Any], time_steps: int | None = None) -> None:
        super().__init__()
        if time_steps is not None and (
            isinstance(time_steps, bool) or int(time_steps) != time_steps or time_steps < 1
        ):
            raise ValueError(f"time_steps must be an integer of at least 1, got {time_steps!r}")
        self.time_steps = time_steps  # type: ignore[assignment]  # unknown until somebody says it
        self.input_shape = _shape_of(graph.get("input_shape"))
        self.layers = nn.ModuleDict()
        self._inputs: dict[str, tuple[str, ...]] = {}
        shapes = {INPUT: self.input_shape}
        for node in graph.get("nodes") or ():
            self._add(node, shapes)
        self._uses = Counter(source for inputs in self._inputs.values() for source in inputs)
        self.output = graph.get("output")
        if self.output not in self._inputs:
            raise ValueError(f"the graph has no node {self.output!r}, which its output names")
        self.output_shape = shapes[str(self.output)]
        if len(self.output_shape) == 1:
            self.num_classes = self.output_shape[0]

    def _add(self, node: Mapping[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
        settings = dict(node)
        name, kind, inputs = (settings.pop(key, None) for key in ("name", "kind", "inputs"))
        if not isinstance(name, str) or not re.fullmatch(r"\w+", name) or name in shapes:
            raise ValueError(f"{str(name)[:80]!r} is no name of a node, or that of another one")
        if kind not in self.kinds:
            known = ", ".join(self.kinds)
            raise ValueError(f"node {name!r}: unknown kind {str(kind)[:80]!r}; known: {known}")
        if not isinstance(inputs, list | tuple) or not inputs:
            raise ValueError(f"node {name!r} takes no input")
        for source in inputs:
            if source not in shapes:
                raise ValueError(f"node {name!r} takes {str(source)[:80]!r}, which does not stand before it")
        shape = shapes[inputs[0]]
        if other := [s for s in inputs if shapes[s] != shape]:
            raise ValueError(
                f"node {name!r} adds {inputs[0]!r} of shape {shape} and {other[0]!r} of shape"
                f" {shapes[other[0]]}"
            )
        held = tuple(settings.pop("shape")) if kind in NEURONS and "shape" in settings else None
        try:
            if held is not None and torch.broadcast_shapes(held, shape) != shape:
                raise ValueError(f"its parameters have the shape {held}")
            with torch.no_grad():
                layer = self.kinds[kind](**settings)
                shapes[name] = shape if isinstance(layer, spiking.Neuron) else _shape_behind(layer, shape)
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            raise ValueError(
                f"node {name!r} ({kind}) on inputs of shape {shape}: {first_line(error)}"
            ) from error
        self.layers[name] = layer
        self._inputs[name] = tuple(inputs)

    def configuration(self, cfg: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The entry's, with the shapes of this graph."""
        own: dict[str, Any] = {
            key: value for key, value in cfg.items() if key not in ("input_size", "num_classes")
        }
        if len(self.input_shape) == 3:  # of an image; the zoo's descriptions know no other
            own["input_size"] = self.input_shape
        return own | {"num_classes": getattr(self, "num_classes", None)}

    def forward(self, x: Tensor, *, steps: bool = False) -> Tensor:
        """The mean of the outputs over T, ``[B, ...]``, or with ``steps=True`` all, ``[T, B, ...]``.

        Args:
            x: ``[B, *input_shape]``, the same at every step, or ``[T, B, *input_shape]``.
            steps: whether to answer every step.

        Raises:
            ValueError: another shape, or T is not known.
        """
        x, T = self._over_time(x)
        left = dict(self._uses)
        values = {INPUT: x}
        for name, inputs in self._inputs.items():
            value = values[inputs[0]]
            for source in inputs[1:]:
                value = value + values[source]
            layer = self.layers[name]
            if isinstance(layer, spiking.Neuron):
                values[name] = layer(value if len(value) == T else value.expand(T, *value.shape[1:]))
            else:  # the same input at every step makes the layers before the first neuron run once
                values[name] = fold_time(layer, value)
            for source in inputs:
                left[source] -= 1
                if not left[source] and source != self.output:
                    del values[source]
        y = values[str(self.output)]
        y = y if len(y) == T else y.expand(T, *y.shape[1:])
        return y if steps else y.mean(dim=0)

    def _over_time(self, x: Tensor) -> tuple[Tensor, int]:
        own = self.input_shape
        axes = f"[B, {', '.join(map(str, own))}]"
        if x.dim() not in (len(own) + 1, len(own) + 2) or tuple(x.shape[-len(own) :]) != own:
            raise ValueError(f"expected {axes} or [T, B, ...], got {list(x.shape)}")
        if x.dim() == len(own) + 2:
            return x, x.shape[0]
        if self.time_steps is None:
            raise ValueError(
                f"T is not known for samples {axes}: the file did not say; give zoo.load(..., time_steps=T),"
                " set model.time_steps, or pass a sequence [T, B, ...]"
            )
        return x.unsqueeze(0), self.time_steps


def _shape_of(shape: Any) -> tuple[int, ...]:
    whole = isinstance(shape, list | tuple) and all(isinstance(n, int) and n > 0 for n in shape)
    if not whole or not 1 <= len(shape) <= MOST_AXES:
        raise ValueError(f"input_shape is {str(shape)[:80]}, expected 1 to {MOST_AXES} sizes")
    return tuple(shape)


def _shape_behind(layer: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one sample behind a layer, found without memory for it."""
    found = next((p for p in layer.parameters()), None)
    if isinstance(layer, Scale) and torch.broadcast_shapes(layer.scale.shape, shape) != shape:
        raise ValueError(f"factors of shape {tuple(layer.scale.shape)}")
    if isinstance(layer, nn.Linear) and len(shape) != 1:
        raise ValueError("a linear layer takes vectors; flatten before it")
    dtype = torch.float32 if found is None else found.dtype
    with torch.device("meta"):
        twin = layer if found is None else _meta(layer)
        behind = twin(torch.empty((2, *shape), dtype=dtype))
    if behind.shape[0] != 2:
        raise ValueError("the layer joins the samples of a batch")
    return tuple(behind.shape[1:])


def _meta(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    tensors = {name: value.to("meta") for name, value in layer.state_dict().items()}
    return lambda x: torch.func.functional_call(layer, tensors, (x,))


@register_model(paper="2311.14641", listed=False)
def nir_network(**kwargs: Any) -> NIRNetwork:
    """The network of a NIR file, see `NIRNetwork`; its weights come from the file."""
    kwargs.pop("num_classes", None)  # a description of the zoo repeats it; here the graph says it
    return build_model(NIRNetwork, "nir_network", {}, **kwargs)
