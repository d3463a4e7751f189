"""Stages of residual networks, which differ in their blocks alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    MakeBlock = Callable[[int, int, int], nn.Module]


def check_stages(layers: Sequence[int], planes: Sequence[int]) -> None:
    """Refuse numbers that do not describe stages.

    Raises:
        ValueError: there are not as many depths as widths.
    """
    if len(layers) != len(planes):
        raise ValueError(
            f"layers and planes need one number a stage each, got {list(layers)}, {list(planes)}"
        )


def add_stages(
    model: nn.Module,
    make_block: MakeBlock,
    *,
    layers: Sequence[int],
    planes: Sequence[int],
    width: int,
    reduction: int = 1,
    first_stride: int = 1,
    first_stage: int = 1,
) -> list[dict[str, Any]]:
    """Add the stages ``layer1``, ``layer2`` ... to a model.

    Args:
        model: gets the stages as children.
        make_block: ``f(c_in, c_out, stride)`` builds one block.
        layers: blocks of each stage.
        planes: C of each stage.
        width: C of the input.
        reduction: side of the image over that of the input.
        first_stride: of the first stage; the others have 2.
        first_stage: number in the name of the first stage.

    Returns:
        An entry of ``feature_info`` for each stage.
    """
    info: list[dict[str, Any]] = []
    for s, (depth, plane) in enumerate(zip(layers, planes, strict=True)):
        stride = 2 if s else first_stride
        stage = nn.Sequential()
        for i in range(depth):
            stage.append(make_block(width, plane, stride if i == 0 else 1))
            width = plane
        name = f"layer{s + first_stage}"
        model.add_module(name, stage)
        reduction *= stride
        info.append({"num_chs": plane, "reduction": reduction, "module": name})
    return info
