"""Entries of UP-Diff: the two published ones, and one that a CPU can train."""

from __future__ import annotations

from typing import Any

from zoo.build import build_model
from zoo.models.up_diff.network import UpDiff
from zoo.models.up_diff.official import filter_checkpoint
from zoo.registry import register_model

PAPER = "2407.11578"
PARTS = ("autoencoder",)
NOTE = "the authors' checkpoint holds UNet and autoencoder; captions are embedded by model.embed_captions"


def _facts(side: int, latent: tuple[int, int, int]) -> dict[str, Any]:
    return {
        "image": (3, side, side),
        "change_map": (1, side, side),
        "latent": latent,
        "values": "image in [-1, 1], change map -1 or 1",
        "call": "from zoo.models.up_diff import sample\n\nafter = sample(model, before, change_map)",
    }


@register_model(
    paper=PAPER,
    task="image-to-image",
    cfg=_facts(512, (4, 64, 64)),
    checkpoint_filter_fn=filter_checkpoint,
    parts=PARTS,
    parameters=1_174_526_706,
    note=NOTE,
    small={
        "image_size": 32, "branch_size": 16, "layout_size": 32, "channels": (32, 64), "context": 16,
        "attention": (True, True), "blocks": 1, "heads": 2, "caption_length": 5, "backbone": "small",
        "autoencoder_channels": (8, 8, 8, 8), "groups": 8,
    },
)  # fmt: skip
def up_diff_levir(**kwargs: Any) -> UpDiff:
    """UP-Diff for crops of 512 x 512 pixels, as published for LEVIR-CD."""
    return build_model(UpDiff, "up_diff_levir", {}, **kwargs)


@register_model(
    paper=PAPER,
    task="image-to-image",
    cfg=_facts(256, (4, 32, 32)),
    checkpoint_filter_fn=filter_checkpoint,
    parts=PARTS,
    parameters=1_174_489_842,
    note=NOTE,
)
def up_diff_sysu(**kwargs: Any) -> UpDiff:
    """UP-Diff for images of 256 x 256 pixels, as published for SYSU-CD."""
    sizes = {"image_size": 256, "branch_size": 128, "layout_size": 128}
    return build_model(UpDiff, "up_diff_sysu", sizes, **kwargs)


@register_model(
    paper=PAPER,
    task="image-to-image",
    cfg=_facts(16, (3, 16, 16)),
    parameters=692_096,
)
def up_diff_tiny(**kwargs: Any) -> UpDiff:
    """UP-Diff of 0.7 million parameters on images of 16 x 16 pixels, without autoencoder and captions."""
    sizes = {
        "image_size": 16, "branch_size": 64, "layout_size": 16, "autoencoder": "identity",
        "caption": "learned", "backbone": "small", "channels": (16, 32), "attention": (True, True),
        "blocks": 1, "heads": 2, "context": 32, "caption_length": 4, "groups": 8, "trained": "all",
    }  # fmt: skip
    return build_model(UpDiff, "up_diff_tiny", sizes, **kwargs)
