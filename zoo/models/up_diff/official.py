"""Names of the tensors in the authors' checkpoints -> ours.

The UNet is stored as in the code of latent diffusion, numbered blocks and all; inside its transformer blocks
the names agree with those of diffusers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from zoo.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

MARK = "input_blocks.0.0.weight"  # only the authors' names have it
AUTOENCODER = "autoencoder."
PARTS = (
    ("time_embed.0.", "unet.time_embedding.linear_1."),
    ("time_embed.2.", "unet.time_embedding.linear_2."),
    ("input_blocks.0.0.", "unet.conv_in."),
    ("middle_block.0.", "unet.mid_block.resnets.0."),
    ("middle_block.1.", "unet.mid_block.attentions.0."),
    ("middle_block.2.", "unet.mid_block.resnets.1."),
    ("out.0.", "unet.conv_norm_out."),
    ("out.2.", "unet.conv_out."),
    ("downsample_net.", "input_branch."),
    ("position_net.convnext_tiny_backbone.", "layout_encoder.backbone."),
    ("position_net.", "layout_encoder."),
)
RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
PROJECTIONS = {"proj_out.": "proj_out.proj.", "proj_sem.": "proj_out.proj_sem."}


def filter_checkpoint(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The authors' tensors under our names, others as they are.

    Captions and the scale of the latents are in no file of the authors and stay what they are.

    Raises:
        CheckpointError: the file has no autoencoder, or one of another layout.
    """
    if MARK not in state:
        return state
    network: Any = model
    own = {k: v for k, v in state.items() if not k.startswith(AUTOENCODER)}
    stored = {k.removeprefix(AUTOENCODER): v for k, v in state.items() if k.startswith(AUTOENCODER)}
    blocks = int(network.unet.config.layers_per_block)
    mapped = {our_name(name, blocks): value for name, value in own.items()}
    mapped = {**_without_head(mapped), **autoencoder_state(stored, network)}
    for name in ("latent_scale", "caption.embedded"):
        mapped[name] = network.state_dict()[name]
    return mapped


def our_name(name: str, blocks: int) -> str:
    """Our name of a tensor of the authors' UNet.

    Args:
        name: theirs.
        blocks: residual blocks of each resolution.
    """
    for theirs, ours in PARTS:
        if name.startswith(theirs):
            return _inside(ours + name.removeprefix(theirs))
    found = re.match(r"(input|output)_blocks\.(\d+)\.(\d+)\.(.*)", name)
    if found is None:
        return name
    side, number, part, rest = found[1], int(found[2]), int(found[3]), found[4]
    down = side == "input"
    level, position = divmod(number - down, blocks + 1)
    path = f"unet.{'down' if down else 'up'}_blocks.{level}"
    if rest.startswith("op."):
        return f"{path}.downsamplers.0.conv.{rest.removeprefix('op.')}"
    if part and rest.startswith("conv."):
        return f"{path}.upsamplers.0.{rest}"
    return _inside(f"{path}.{'attentions' if part else 'resnets'}.{position}.{rest}")


def _inside(name: str) -> str:
    """The names inside residual blocks, transformers and the layout's backbone."""
    if ".resnets." in name:
        for theirs, ours in RESIDUAL.items():
            name = name.replace(f".{theirs}.", f".{ours}.")
    elif ".attentions." in name:
        head, _, rest = name.partition(".attentions.")
        number, _, rest = rest.partition(".")
        for theirs, ours in PROJECTIONS.items():
            if rest.startswith(theirs):
                rest = ours + rest.removeprefix(theirs)
        name = f"{head}.attentions.{number}.{rest}"
    elif name.startswith("layout_encoder.backbone."):
        name = _convnext(name)
    return name


def _convnext(name: str) -> str:
    """The names of ConvNeXt's authors -> those of timm."""
    name = name.replace("backbone.downsample_layers.0.", "backbone.stem.")
    name = re.sub(r"backbone\.downsample_layers\.(\d+)\.", r"backbone.stages.\1.downsample.", name)
    name = re.sub(r"(backbone\.stages\.\d+)\.(\d+)\.", r"\1.blocks.\2.", name)
    for theirs, ours in (("dwconv", "conv_dw"), ("pwconv1", "mlp.fc1"), ("pwconv2", "mlp.fc2")):
        name = name.replace(f".{theirs}.", f".{ours}.")
    return name


def _without_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the classifier of ImageNet, and the norm before it, which the layout does not use."""
    unused = tuple(f"layout_encoder.backbone.{part}." for part in ("norm", "head"))
    return {k: v for k, v in state.items() if not k.startswith(unused)}


def autoencoder_state(stored: dict[str, Tensor], network: Any) -> dict[str, Tensor]:
    """The authors' autoencoder under our names.

    Raises:
        CheckpointError: there is none, or it has other parts.
    """
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    if not stored:
        raise CheckpointError(
            "the file holds the UNet of UP-Diff without an autoencoder; the authors' files have both"
        )
    theirs = {f"first_stage_model.{k}": v for k, v in stored.items() if not k.startswith("loss.")}
    made = convert_ldm_vae_checkpoint(theirs, network.autoencoder.network.config)
    if len(made) != len(theirs):
        raise CheckpointError(
            f"{len(theirs) - len(made)} of the {len(theirs)} tensors of the autoencoder are unknown"
        )
    return {f"autoencoder.network.{k}": v for k, v in made.items()}
