"""The folder of the published tokenizer: ``config.yaml`` and ``model.ckpt``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from zoo.errors import CheckpointError
from zoo.files.checkpoint import read_checkpoint
from zoo.models.emu3_5.ibq.network import IBQ

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

# names of the authors' configuration and ours
NAMES = {
    "z_channels": "z_channels", "resolution": "resolution", "in_channels": "in_chans", "out_ch": "out_chans",
    "ch": "channels", "ch_mult": "multipliers", "num_res_blocks": "blocks", "attn_resolutions": "attention",
    "dropout": "dropout",
}  # fmt: skip
PARTS = ("encoder.", "decoder.", "quantize.", "quant_conv.", "post_quant_conv.")


def arguments_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `IBQ` from the authors' ``config.yaml``.

    Raises:
        CheckpointError: something is missing, or it is another kind of autoencoder.
    """
    needed = [key for key in ("ddconfig", "n_embed", "embed_dim") if key not in config]
    inner = config.get("ddconfig") or {}
    needed += [f"ddconfig.{key}" for key in NAMES if key not in inner and key != "dropout"]
    if needed:
        raise CheckpointError(f"config.yaml of an IBQ tokenizer lacks {', '.join(needed)}")
    if inner.get("double_z"):
        raise CheckpointError("config.yaml says double_z: true, a variational autoencoder; IBQ has none")
    made = {ours: inner[theirs] for theirs, ours in NAMES.items() if theirs in inner}
    if "beta" in config:
        made["beta"] = config["beta"]
    return {**made, "codes": config["n_embed"], "embed_dim": config["embed_dim"]}


def filter_checkpoint(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The network alone: the published training state also holds losses and their networks."""
    return {key: value for key, value in state.items() if key.startswith(PARTS)}


def is_published(place: Path) -> bool:
    """Whether a place is a folder in the layout of BAAI/Emu3.5-VisionTokenizer."""
    return all((place / name).is_file() for name in ("config.yaml", "model.ckpt"))


def load_ibq(folder: str | Path) -> IBQ:
    """The tokenizer of a folder in the layout of BAAI/Emu3.5-VisionTokenizer, in evaluation mode.

    Nothing in the files is run. The network is built without memory first; its tensors are those of the file.

    Args:
        folder: with ``config.yaml`` and ``model.ckpt``.

    Raises:
        CheckpointError: a file is missing or does not fit the other.
    """
    folder = Path(folder).expanduser()
    for name in ("config.yaml", "model.ckpt"):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} has no {name}; a vision tokenizer is a folder with config.yaml and model.ckpt"
            )
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise CheckpointError(f"{folder / 'config.yaml'} is not YAML: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / 'config.yaml'} holds no keys")
    arguments = arguments_of(config)
    with torch.device("meta"):
        model = IBQ(**arguments)
    state = filter_checkpoint(dict(read_checkpoint(folder / "model.ckpt").state), model)
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        told = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{folder / 'model.ckpt'} does not fit its config.yaml: {told}") from error
    model.architecture, model.model_args = "emu3_5_ibq", arguments
    return model.requires_grad_(True).eval()
