"""Networks from names and plain values: whether a model can be built again so, and doing it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from conversion import ConvertedModel
from zoo.base import ZooModel
from zoo.errors import CheckpointError, NotRebuildableError
from zoo.files.formats.torch_file import first_line
from zoo.registry import get_entry, is_registered
from zoo.timm_bridge.arguments import check_timm, check_words
from zoo.timm_bridge.names import is_timm

if TYPE_CHECKING:
    from collections.abc import Mapping

LIBRARIES = ("timm", "torchvision")
TORCHVISION = (  # what classifiers are made of
    "num_classes", "dropout", "attention_dropout", "stochastic_depth_prob", "drop_rate", "zero_init_residual",
    "groups", "width_per_group", "replace_stride_with_dilation", "image_size", "input_size", "width_mult",
    "init_weights", "aux_logits", "transform_input",
)  # fmt: skip


def unwrap(model: Any) -> Any:
    """The model inside DDP and ``torch.compile`` wrappers."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            return model


def architecture_of(model: nn.Module) -> str:
    """Name of the entry, ours or timm's, that built ``model``; empty if none did."""
    name = getattr(model, "architecture", "")
    if not name and isinstance(cfg := getattr(model, "pretrained_cfg", None), dict):
        name = cfg.get("architecture") or ""
    return str(name)


def runs_over_time(model: nn.Module) -> bool:
    """Whether a network runs over T steps, so that ``model(x, steps=True)`` gives an answer for each."""
    return isinstance(model, ConvertedModel) or (isinstance(model, ZooModel) and model.takes_time_steps)


def rebuildable(model: nn.Module) -> dict[str, Any]:
    """The plain arguments from which the entry builds ``model`` again; checked by doing it."""
    way_out = (
        "register a function that builds it from plain values with zoo.register_model, build it"
        " through zoo.create, and save that"
    )
    if isinstance(model, ConvertedModel):
        return rebuildable_conversion(model)
    name = architecture_of(model)
    ours = isinstance(model, ZooModel) and is_registered(name)
    if not name or not (ours or is_timm(name)):
        raise NotRebuildableError(
            f"{type(model).__name__} was not built by an entry of the zoo, so nobody could load it"
            f" again; {way_out}"
        )
    arguments = dict(getattr(model, "model_args", {}))
    if not ours:
        arguments["num_classes"] = model.num_classes
    elif "time_steps" in arguments:  # may have been changed since
        arguments["time_steps"] = model.time_steps
    for key, value in arguments.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise NotRebuildableError(
                f"argument {key}={value!r} of {name} is no plain value; {way_out}"
            ) from error
    arguments = json.loads(json.dumps(arguments))
    try:
        check_words(arguments, f"an argument of {name}")
        with torch.device("meta"):
            twin = get_entry(name).fn(**arguments) if ours else build_timm(name, arguments)
    except CheckpointError as error:
        raise NotRebuildableError(f"{error}; {way_out}") from error
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    twin_shapes = {k: tuple(v.shape) for k, v in twin.state_dict().items()}
    differing = sorted(k for k in {*shapes, *twin_shapes} if shapes.get(k) != twin_shapes.get(k))
    lines, twin_lines = repr(model).splitlines(), repr(twin).splitlines()
    if lines != twin_lines:
        differing += [
            f"{new.strip()!r} instead of {old.strip()!r}"
            for new, old in zip(lines, twin_lines, strict=False)
            if new != old
        ][:3]
    if differing:
        raise NotRebuildableError(
            f"this {name} was changed after it was built and would come back different"
            f" ({'; '.join(differing[:3])}); {way_out}"
        )
    return dict(arguments)


def rebuildable_conversion(model: ConvertedModel) -> dict[str, Any]:
    """The recipe of a converted network, if its source can be built from a name and plain values."""
    recipe = {**model.recipe, "time_steps": model.time_steps}
    source = recipe["source"]
    way_out = (
        "convert a model of the zoo or of timm, or name it: convert(..., source={'architecture':"
        " 'timm/NAME', 'model_args': {...}}); networks of your own become known by zoo.register_model"
    )
    if source is None:
        raise NotRebuildableError(
            f"the source of this converted network tells no name, so nobody could build it again; {way_out}"
        )
    try:
        recipe = json.loads(json.dumps(recipe))
        with torch.device("meta"):
            twin = build_source(source)
    except (TypeError, ValueError, RuntimeError) as error:
        raise NotRebuildableError(
            f"the source {source} cannot be built again ({first_line(error)}); {way_out}"
        ) from error
    expected = {k: tuple(v.shape) for k, v in twin.state_dict().items()}
    own = {k: tuple(v.shape) for k, v in model.state_dict().items() if k in expected}
    differing = sorted(k for k, shape in own.items() if expected[k] != shape)
    if differing or not own:
        raise NotRebuildableError(
            f"{source['architecture']} built from {source['model_args']} differs from the source of this"
            f" network ({', '.join(differing[:3]) or 'no common weights'}); {way_out}"
        )
    return dict(recipe)


def build_source(source: Mapping[str, Any]) -> nn.Module:
    """The source network with random weights; nothing is opened and nobody is asked for it.

    Raises:
        CheckpointError: the description of the source leads elsewhere.
        ValueError: an unknown library.
        TypeError: an argument that the network does not take.
    """
    name, arguments = str(source["architecture"]), dict(source.get("model_args") or {})
    library, _, rest = name.partition("/")
    if not rest:
        entry = get_entry(name)
        if not entry.listed:
            raise ValueError(f"the source {name!r} is no ANN")
        check_words(arguments, f"model_args of {name}")
        return entry.fn(**arguments)
    if library == "timm":
        return build_timm(rest, arguments)
    if library == "torchvision":
        return _build_torchvision(rest, arguments)
    raise ValueError(
        f"unknown library {library!r} in the source {name!r}; known: {', '.join(LIBRARIES)}, or an entry"
    )


def build_timm(name: str, arguments: Mapping[str, Any], **cfg: Any) -> nn.Module:
    """Timm's model with random weights; see `check_timm`."""
    import timm

    check_timm(name, arguments)
    network: Any = timm.create_model(name, pretrained=False, **arguments, **cfg)
    network.model_args = dict(arguments)  # what builds it again, as on our own models
    return cast("nn.Module", network)


def _build_torchvision(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Torchvision's classifier; its detectors and segmenters would fetch a backbone."""
    from torchvision import models

    if name not in models.list_models(module=models):
        raise CheckpointError(f"torchvision has no classifier {name[:200]!r}")
    for key, value in arguments.items():
        if key not in TORCHVISION:
            raise CheckpointError(
                f"a description must not set {key[:80]!r} of torchvision/{name}; accepted:"
                f" {', '.join(TORCHVISION)}"
            )
        check_words(value, f"{key} of torchvision/{name}")
    network: nn.Module = models.get_model(name, weights=None, **arguments)
    return network
