"""Our tensors of UP-Diff under the names that code of latent diffusion gives them, written for this purpose.

The product maps theirs to ours; this goes the other way, by rules of its own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

RESIDUAL = [
    ("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"), ("conv2", "out_layers.3"), ("conv_shortcut", "skip_connection"),
]  # fmt: skip
OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}


def unet_name(name: str, blocks: int, attention: list[bool]) -> str:
    """Name of a tensor of the UNet; ``attention`` of each resolution, the largest first."""
    for ours, theirs in OUTSIDE.items():
        if name.startswith(ours + "."):
            return _inside(theirs, name.removeprefix(ours + "."))
    side, level, kind, index, rest = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name).groups()
    level, index, each = int(level), int(index), blocks + 1
    if kind == "downsamplers":
        return f"input_blocks.{1 + level * each + blocks}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{level * each + blocks}.{2 if attention[::-1][level] else 1}.{rest}"
    number = (1 if side == "down" else 0) + level * each + index
    block = f"{'input' if side == 'down' else 'output'}_blocks.{number}.{0 if kind == 'resnets' else 1}"
    return _inside(block, rest)


def _inside(block: str, rest: str) -> str:
    for ours, theirs in RESIDUAL:
        if rest.startswith(ours + ".") and "transformer_blocks" not in rest:
            return f"{block}.{theirs}.{rest.removeprefix(ours + '.')}"
    return f"{block}.{rest}".replace("proj_out.proj_sem.", "proj_sem.").replace("proj_out.proj.", "proj_out.")


def backbone_name(name: str) -> str:
    """Name of a tensor of ConvNeXt, as its authors have it."""
    name = re.sub(r"^stem\.", "downsample_layers.0.", name)
    name = re.sub(r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1.", name)
    name = name.replace(".blocks.", ".").replace("conv_dw", "dwconv")
    return name.replace("mlp.fc1", "pwconv1").replace("mlp.fc2", "pwconv2")


def autoencoder_state(state: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """The state of the KL autoencoder; its attention is written as convolutions of one pixel."""
    made = {}
    for name, value in state.items():
        name = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", name)
        up = re.match(r"decoder\.up_blocks\.(\d+)\.", name)
        if up:
            level = levels - 1 - int(up[1])
            name = re.sub(r"up_blocks\.\d+\.resnets\.", f"up.{level}.block.", name)
            name = re.sub(r"up_blocks\.\d+\.upsamplers\.0\.", f"up.{level}.upsample.", name)
        name = name.replace("mid_block.resnets.0", "mid.block_1").replace(
            "mid_block.resnets.1", "mid.block_2"
        )
        name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        if "mid_block.attentions.0." in name:
            for ours, theirs in (("group_norm", "norm"), ("to_out.0", "proj_out"), ("to_", "")):
                name = name.replace(f"attentions.0.{ours}", f"attentions.0.{theirs}")
            name = name.replace("mid_block.attentions.0", "mid.attn_1")
            value = value[:, :, None, None] if value.dim() == 2 else value
        made[name] = value
    return made


def checkpoint(
    state: dict[str, Tensor], blocks: int, attention: list[bool], levels: int
) -> dict[str, dict[str, Tensor]]:
    """The two state dicts of the authors' file, ``model`` and ``autoencoder``."""
    model = {}
    for name, value in state.items():
        part, _, rest = name.partition(".")
        if part == "unet":
            model[unet_name(rest, blocks, attention)] = value
        elif part == "input_branch":
            model[f"downsample_net.{rest}"] = value
        elif part == "layout_encoder":
            head, _, tail = rest.partition(".")
            inner = f"convnext_tiny_backbone.{backbone_name(tail)}" if head == "backbone" else rest
            model[f"position_net.{inner}"] = value
    prefix = "autoencoder.network."
    stored = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return {"model": model, "autoencoder": autoencoder_state(stored, levels)}
