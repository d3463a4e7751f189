"""Where a source network came from, in plain values from which the zoo can build it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def describe_source(model: nn.Module, input_size: tuple[int, ...]) -> dict[str, Any] | None:
    """Entry name and arguments of ``model``, None if it tells neither.

    Models of the zoo know both. Models of timm know their name; number of classes and channels, and the
    image size where it is fixed, are read off them. ``zoo.save`` checks that the description is right.

    Args:
        model: the source.
        input_size: ``(C, H, W)`` that it is converted for.
    """
    architecture = getattr(model, "architecture", None)
    if isinstance(architecture, str) and architecture:
        return {"architecture": architecture, "model_args": dict(getattr(model, "model_args", {}))}
    cfg = getattr(model, "pretrained_cfg", None)
    if not isinstance(cfg, dict) or not cfg.get("architecture"):
        return None
    classes = getattr(model, "num_classes", None)
    arguments: dict[str, Any] = dict(getattr(model, "model_args", {}))  # noted by zoo.load
    arguments["num_classes"] = cfg["num_classes"] if classes is None else int(classes)
    if input_size[0] != 3:
        arguments["in_chans"] = input_size[0]
    embed = getattr(model, "patch_embed", None)
    if getattr(embed, "img_size", None) is not None:
        arguments.pop("img_size", None)  # of before a `set_input_size`
        if cfg.get("input_size") != tuple(input_size):
            arguments["img_size"] = list(input_size[1:])
    return {"architecture": f"timm/{cfg['architecture']}", "model_args": arguments}
