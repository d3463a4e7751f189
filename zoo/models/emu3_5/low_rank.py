"""Low-rank additions (LoRA, arXiv 2106.09685) become part of the weights that they were trained beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

SCALE = "lora_scale"  # buffer beside the additions of a layer: what their product counts with
WRAPPED = "base_model.model."  # what peft puts before the names of a network


def merged(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The weights ``W + scale B A`` of a network that was trained with additions; others stay as they are.

    Args:
        state: by the names that peft gives them, with the scale of each layer.
        model: what they are for.

    Raises:
        CheckpointError: additions of a form that cannot become part of weights, or without their scale.
    """
    if not any(".lora_" in key for key in state):
        return state
    plain: dict[str, Tensor] = {}
    for key, value in state.items():
        if ".lora_" in key:
            continue
        layer = key.removesuffix(".base_layer.weight")
        if layer != key:
            value = value + _addition(state, layer).to(value.dtype)
        plain[key.replace(WRAPPED, "", 1).replace(".base_layer.", ".")] = value
    return plain


def _addition(state: dict[str, Tensor], layer: str) -> Tensor:
    parts = {key.removeprefix(f"{layer}."): value for key, value in state.items() if key.startswith(layer)}
    found = {key: value for key, value in parts.items() if key.startswith("lora_")}
    down, up = (found.pop(f"lora_{side}.default.weight", None) for side in "AB")
    scale = found.pop(SCALE, None)
    if down is None or up is None or scale is None or found:
        told = ", ".join(sorted(key for key in parts if key.startswith("lora_")))
        raise CheckpointError(
            f"the low-rank additions of {layer} cannot become part of its weights: they have {told}; expected"
            f" are lora_A.default.weight, lora_B.default.weight and {SCALE}"
        )
    return scale * (up.float() @ down.float())
