"""State dicts of plain snnTorch networks: which layers they tell of, and what has to be said beside.

A state dict holds tensors, and so convolutions, linear layers, batch norms and ``Leaky`` neurons in the order
in which they were made, which in an ``nn.Sequential`` is that in which they run. It does not hold strides,
padding, pooling and flattening, whether the reset is delayed, and T. Of linear layers and neurons alone
nothing is missing; of networks with convolutions somebody has to say the layers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from spiking.arguments import only_known
from zoo.errors import CheckpointError
from zoo.models.snntorch_network import PARAMETERS, RESETS, modules_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

ENTRY = "snntorch_network"
MARK = "reset_mechanism_val"  # a buffer of all neurons of snnTorch, and of nobody else's
OWN = frozenset({*PARAMETERS, MARK})
WEIGHTED = ("conv", "linear", "norm", "leaky")
SETTINGS = {  # of a word in ``layers``, and their defaults; those of pooling begin with the kernel
    "conv": {"stride": 1, "padding": 0, "dilation": 1, "groups": 1},
    "linear": {},
    "norm": {},
    "leaky": {},
    "maxpool": {"kernel": 2, "stride": 0, "padding": 0},
    "avgpool": {"kernel": 2, "stride": 0, "padding": 0},
    "flatten": {},
    "dropout": {},
}


def is_snntorch(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors are those of a network of snnTorch."""
    return any(key.rpartition(".")[2] == MARK for key in state)


def arguments_of(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with which `zoo.models.snntorch_network` builds the network of a state dict.

    Args:
        state: tensors by name.
        given: ``layers``, a list such as ``["conv padding=1", "maxpool 2", "leaky", "flatten", "linear",
            "leaky"]``; ``input_shape`` of one sample; ``reset_delay``, True if missing; ``time_steps``.

    Raises:
        CheckpointError: neurons that there are none of here, or something that the file does not tell and
            nobody said.
        TypeError: an unknown argument.
    """
    only_known(ENTRY, given, ("layers", "input_shape", "reset_delay", "time_steps"))
    modules = {path: (_kind(path, tensors), tensors) for path, tensors in modules_of(state).items()}
    kinds = [kind for kind, _ in modules.values()]
    layers = given.get("layers")
    shape = given.get("input_shape")
    if layers is None:
        if "conv" in kinds:
            raise CheckpointError(
                "the file is of a network of snnTorch with convolutions, and does not tell their strides and"
                f" padding, nor pooling. Say all layers in order, such as --arg 'layers={_example(kinds)}',"
                " and the shape of one sample, such as --arg input_shape='[1, 28, 28]'"
            )
        layers = kinds
    if shape is None:
        if kinds[0] != "linear":
            raise CheckpointError(
                "the file does not tell the shape of a sample, such as --arg input_shape='[1, 28, 28]'"
            )
        shape = [int(next(iter(modules.values()))[1]["weight"].shape[1])]
    graph = _graph(list(modules.values()), layers, shape, bool(given.get("reset_delay", True)))
    return {"graph": graph, "time_steps": given.get("time_steps")}


def _kind(path: str, tensors: Mapping[str, Tensor]) -> str:
    """What a module is by its tensors."""
    if MARK in tensors:
        mechanism = tensors[MARK]
        if mechanism.numel() != 1 or int(mechanism) not in range(len(RESETS)) or "beta" not in tensors:
            raise CheckpointError(f"{path!r} is no Leaky neuron of snnTorch: it has {', '.join(tensors)}")
        if other := sorted(set(tensors) - OWN):
            raise CheckpointError(
                f"{path!r} is a neuron of snnTorch with {other[0]!r}; of its neurons Leaky is known here"
            )
        return "leaky"
    weight = tensors.get("weight")
    if weight is not None and "running_mean" in tensors:
        return "norm"
    if weight is not None and weight.dim() in (2, 4) and set(tensors) <= {"weight", "bias"}:
        return "linear" if weight.dim() == 2 else "conv"
    names = ", ".join(tensors)
    raise CheckpointError(
        f"{path!r} ({names}) is no layer that is known here: convolutions of images, linear layers, batch"
        " norms and Leaky neurons are"
    )


def _example(kinds: Sequence[str]) -> str:
    """What ``layers`` may look like for such modules."""
    words: list[str] = []
    for i, kind in enumerate(kinds):
        if kind == "linear" and "conv" in kinds[:i] and "linear" not in kinds[:i]:
            words.append("flatten")
        words.append(kind)
        if kind == "conv":
            words.append("maxpool 2")
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"


def _graph(
    modules: Sequence[tuple[str, Mapping[str, Tensor]]], layers: Any, shape: Any, delay: bool
) -> dict[str, Any]:
    """The description that `zoo.models.nir_network.NIRNetwork` takes: one node behind the other."""
    if not isinstance(layers, list | tuple) or not all(isinstance(word, str) for word in layers):
        raise CheckpointError(f"layers must be a list of words, got {layers!r}")
    left = list(modules)
    nodes: list[dict[str, Any]] = []
    last = "input"
    mapped = len(shape) == 3  # whether samples are maps at this place
    if mapped and layers and layers[0].split()[0] == "linear":
        layers = ["flatten", *layers]
    for position, word in enumerate(layers):
        name, settings = _read(word)
        if name == "dropout":
            continue
        tensors: Mapping[str, Tensor] = {}
        if name in WEIGHTED:
            kind, tensors = left.pop(0) if left else ("", {})
            if kind != name:
                there = f"the file has {kind!r}" if kind else "the file has no more modules"
                raise CheckpointError(f"layers has {word!r} at position {position}, where {there}")
        node = _node(name, settings, tensors, mapped, delay)
        mapped = mapped and name != "flatten"
        nodes.append({"name": f"{name}{position}", "inputs": [last], **node})
        last = nodes[-1]["name"]
    if left:
        raise CheckpointError(f"layers ends before the file, whose next module is a {left[0][0]}")
    return {"input_shape": [int(n) for n in shape], "nodes": nodes, "output": last}


def _read(word: str) -> tuple[str, dict[str, int]]:
    """``"conv padding=1"`` -> ``("conv", {"stride": 1, "padding": 1, ...})``."""
    name, *rest = word.split() or [""]
    if name not in SETTINGS:
        raise CheckpointError(f"unknown layer {word!r}; known: {', '.join(SETTINGS)}")
    settings = dict(SETTINGS[name])
    for part in rest:
        found = re.fullmatch(r"(?:(\w+)=)?(\d+)", part)
        key = "" if found is None else found[1] or "kernel"
        if found is None or key not in settings:
            known = ", ".join(settings) or "nothing"
            raise CheckpointError(f"cannot read {part!r} of {word!r}; {name} takes {known}, as whole numbers")
        settings[key] = int(found[2])
    if "kernel" in settings and not settings["stride"]:
        settings["stride"] = settings["kernel"]
    return name, settings


def _node(
    name: str, settings: Mapping[str, int], tensors: Mapping[str, Tensor], mapped: bool, delay: bool
) -> dict[str, Any]:
    """Kind and settings of a node."""
    if name == "leaky":
        shapes = {key: list(tensors[key].shape) for key in PARAMETERS if key in tensors}
        return {"kind": "leaky", "shapes": shapes, "reset": RESETS[int(tensors[MARK])], "delay": delay}
    if name == "flatten":
        return {"kind": "flatten", "start": 0, "end": -1}
    if name == "maxpool":
        return {"kind": "max_pool2d", **settings}
    if name == "avgpool":
        return {"kind": "avg_pool2d", **{key: [value] * 2 for key, value in settings.items()}}
    weight = tensors["weight"]
    if name == "norm":
        return {"kind": "norm", "features": int(weight.shape[0]), "axes": 3 if mapped else 1}
    if name == "linear":
        out_features, in_features = map(int, weight.shape)
        sizes = {"in_features": in_features, "out_features": out_features}
        return {"kind": "linear", **sizes, "bias": "bias" in tensors}
    groups = settings["groups"]
    return {
        "kind": "conv",
        "in_channels": int(weight.shape[1]) * groups,
        "out_channels": int(weight.shape[0]),
        "kernel_size": [int(n) for n in weight.shape[2:]],
        **{key: [settings[key]] * 2 for key in ("stride", "padding", "dilation")},
        "groups": groups,
        "bias": "bias" in tensors,
    }
