"""The entry of the published language model; needs the extra ``multimodal``."""

from __future__ import annotations

from typing import Any

from zoo.build import build_model
from zoo.models.emu3_5.low_rank import merged
from zoo.models.emu3_5.model import CALL, Emu35
from zoo.registry import register_model


@register_model(
    paper="2510.26583",
    task="language",
    cfg={"context": 32_768, "output": "text and images", "call": CALL.replace("digit 3", "a cat")},
    checkpoint_filter_fn=merged,
    parameters=34_103_460_864,
    note="zoo.models.emu3_5.load_emu3_5 reads the published folder: 68 GB in bfloat16",
    small={
        "vocabulary": "tiny", "visual_codes": 9, "layers": 1, "width": 16, "ffn": 24, "heads": 2,
        "kv_heads": 1, "head_dim": 8, "context": 64,
    },
)  # fmt: skip
def emu3_5(**kwargs: Any) -> Emu35:
    """Emu3.5 as published: 34.1 B parameters, 151,854 ids of text and control, 131,072 image codes."""
    sizes = {
        "vocabulary": "emu3_5", "visual_codes": 131_072, "layers": 64, "width": 5120, "ffn": 25_600,
        "heads": 64, "kv_heads": 8, "head_dim": 128, "context": 32_768, "rope_theta": 1e6,
    }  # fmt: skip
    return build_model(Emu35, "emu3_5", sizes, **kwargs)
