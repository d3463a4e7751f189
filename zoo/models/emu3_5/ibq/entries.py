"""Entries of IBQ: the published tokenizer, and one for small images in shades of grey."""

from __future__ import annotations

from typing import Any

from zoo.build import build_model
from zoo.models.emu3_5.ibq.network import IBQ
from zoo.models.emu3_5.ibq.official import filter_checkpoint
from zoo.registry import register_model

PAPER = "2510.26583"


def _facts(channels: int, factor: int, codes: int) -> dict[str, Any]:
    return {
        "images": f"[N, {channels}, H, W] in [-1, 1], sides multiples of {factor}",
        "codes": f"{codes:,} codes, one for {factor} x {factor} pixels",
        "call": "codes = model.encode(images)\nimages = model.decode_code(codes)",
    }


@register_model(
    paper=PAPER,
    task="image-to-image",
    cfg=_facts(3, 16, 131_072),
    checkpoint_filter_fn=filter_checkpoint,
    parameters=455_336_963,
    note="widths as the published number of parameters tells them; load_ibq reads them from config.yaml",
    small={
        "codes": 24, "embed_dim": 8, "z_channels": 8, "channels": 32, "multipliers": (1, 2), "blocks": 1,
        "attention": (8,), "resolution": 16,
    },
)  # fmt: skip
def emu3_5_ibq(**kwargs: Any) -> IBQ:
    """Vision tokenizer of Emu3.5: 131,072 codes, each for 16 x 16 pixels."""
    return build_model(IBQ, "emu3_5_ibq", {}, **kwargs)


@register_model(
    paper=PAPER,
    task="image-to-image",
    cfg=_facts(1, 4, 64),
    parameters=258_753,
)
def emu3_5_ibq_tiny(**kwargs: Any) -> IBQ:
    """The same at the size of a toy: images in shades of grey, 64 codes, each for 4 x 4 pixels."""
    sizes = {
        "codes": 64, "embed_dim": 16, "z_channels": 32, "in_chans": 1, "out_chans": 1, "channels": 16,
        "multipliers": (1, 2, 2), "blocks": 1, "attention": (), "resolution": 28, "groups": 8,
        "spread": 1.0,
    }  # fmt: skip
    return build_model(IBQ, "emu3_5_ibq_tiny", sizes, **kwargs)


def tokenizer_of(described: dict[str, Any]) -> IBQ:
    """A tokenizer with random weights, by its entry and arguments, see `IBQ.described`.

    Raises:
        ValueError: the entry is none.
    """
    entries = {"emu3_5_ibq": emu3_5_ibq, "emu3_5_ibq_tiny": emu3_5_ibq_tiny}
    if described.get("model") not in entries:
        raise ValueError(
            f"{described.get('model')} is no tokenizer of images; those are {', '.join(entries)}"
        )
    return entries[described["model"]](**(described.get("model_args") or {}))
