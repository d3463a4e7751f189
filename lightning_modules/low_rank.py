"""Low-rank additions to the layers of a decoder, which are trained in the place of its weights."""

from __future__ import annotations

from typing import Any

import torch

from zoo.models.emu3_5.low_rank import SCALE

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
REFUSED = ("use_dora", "modules_to_save", "lora_bias", "target_parameters")  # cannot become part of weights


def with_lora(decoder: Any, settings: dict[str, Any]) -> Any:
    """The decoder with low-rank additions (LoRA, arXiv 2106.09685), which alone are trained; needs peft.

    A buffer beside the additions of each layer holds their scale, so that checkpoints tell it.

    Args:
        decoder: of transformers.
        settings: of ``peft.LoraConfig``; the projections of attention and feed-forward layers are its targets
            if it names no others.

    Raises:
        ImportError: peft is missing.
        ValueError: settings that peft does not know, or additions that cannot become part of weights.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ImportError("LoRA needs peft: pip install 'fulgurite[multimodal]'") from error
    for key in REFUSED:
        if settings.get(key):
            raise ValueError(f"lora.{key}: its additions cannot become part of the weights; leave it out")
    try:
        config = LoraConfig(task_type="CAUSAL_LM", **{"target_modules": PROJECTIONS, **settings})
        wrapped = get_peft_model(decoder, config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"lora: {error}") from error
    layers: list[Any] = [module for module in wrapped.modules() if hasattr(module, "lora_A")]
    for layer in layers:
        layer.register_buffer(SCALE, torch.tensor(float(layer.scaling["default"])))
    return wrapped
